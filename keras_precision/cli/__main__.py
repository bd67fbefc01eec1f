"""``python -m keras_precision.cli``: the command line without its script."""

import sys

from keras_precision.cli.main import main

sys.exit(main())

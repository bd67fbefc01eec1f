"""Files of other runtimes: read as they are, and run."""

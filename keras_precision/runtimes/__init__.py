"""Files of the runtimes, read and run."""

"""Files for other runtimes: written, then read back."""

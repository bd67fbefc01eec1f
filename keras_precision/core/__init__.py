"""The lowest layer: values, number formats, files and processes."""

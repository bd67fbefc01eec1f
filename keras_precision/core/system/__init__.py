"""Files, processes, output, and optional packages."""

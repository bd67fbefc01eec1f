"""Statistical comparison of results."""

"""Reports of results: pure functions from values to text, tables and charts."""

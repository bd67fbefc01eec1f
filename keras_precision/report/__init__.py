"""Results, shown: pure functions from values to text."""

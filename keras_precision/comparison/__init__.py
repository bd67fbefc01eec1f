"""What the figures of two runs can show."""

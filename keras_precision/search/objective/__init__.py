"""What is asked of a plan."""

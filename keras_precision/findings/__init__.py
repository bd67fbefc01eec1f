"""What is concluded from results: a new finding is a function in one of these files."""

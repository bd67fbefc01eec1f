"""A model seen from within its trace."""

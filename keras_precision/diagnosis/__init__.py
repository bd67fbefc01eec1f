"""A model looked at, then judged."""

"""A search in several processes: their roles, and recovery from processes that die."""

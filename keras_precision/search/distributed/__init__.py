"""A search in several processes: who is the chief, and what happens when one dies."""

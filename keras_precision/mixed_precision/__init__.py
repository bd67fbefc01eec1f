"""The global policy, plans applied to models, and what the machine accelerates."""

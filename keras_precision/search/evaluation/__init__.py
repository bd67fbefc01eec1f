"""How a plan is judged."""

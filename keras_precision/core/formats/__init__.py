"""Number formats, how arrays fit them, and what a deployment precision is made of."""

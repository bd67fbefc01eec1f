"""Number formats, how arrays fit them, and the precisions of deployment plans."""

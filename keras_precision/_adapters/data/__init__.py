"""Data in any form that ``fit`` takes, as checked arrays."""

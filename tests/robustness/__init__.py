"""Damaged files, kills and faults of the disk: what must hold then, in seconds here and in bulk in ``benchmarks/robustness.py``."""

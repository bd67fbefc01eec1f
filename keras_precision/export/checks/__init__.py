"""Compilers and rules of devices that a written file is held against."""

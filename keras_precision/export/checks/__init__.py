"""Compilers and rules of devices, which written files are checked with."""

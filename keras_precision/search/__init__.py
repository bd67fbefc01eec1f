"""Precision per layer, chosen by measurement: plans are compiled, run and compared until one fits the budget."""

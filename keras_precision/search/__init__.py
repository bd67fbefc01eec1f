"""Precision per layer, chosen by evidence: plans are made, run and compared until one fits the budget."""

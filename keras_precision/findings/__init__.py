"""Rules that derive findings from results, graphs and layers."""

"""The objective of a search: budget, metric and direction."""

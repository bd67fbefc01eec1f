"""Charts: pure functions from results to what plotly draws. None imports plotly."""

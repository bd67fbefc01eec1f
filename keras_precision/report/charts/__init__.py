"""Charts: pure functions from results to the JSON of plotly, without importing plotly."""

"""Tables: pure functions from results to rows."""

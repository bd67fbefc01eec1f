"""The probes of the profiler."""

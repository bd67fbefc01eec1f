"""What the profiler watches: one small file a probe."""

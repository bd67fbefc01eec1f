"""Which plan to run next; independent of KerasTuner."""

"""Which plan to run next. It knows nothing of KerasTuner."""

"""What folds many stretches at once: processes, or Spark and what it needs."""

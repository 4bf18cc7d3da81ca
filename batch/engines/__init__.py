"""What folds many ranges at once: processes, or Spark and what it needs."""

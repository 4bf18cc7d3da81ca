"""Engines that fold many offset ranges in parallel: local processes, or Spark with its JVM and session."""

"""What users of StreamGuard need to test against it: a local Kafka, a clock, crash points."""

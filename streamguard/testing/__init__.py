"""Helpers for tests of StreamGuard and of software that uses it: a local Kafka, a clock and failpoints."""

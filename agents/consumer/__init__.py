"""Brings Kafka records to partition tasks: group membership, the fetch thread, and chunks in order."""

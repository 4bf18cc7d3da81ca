"""The speed layer: folds Kafka records into state and publishes incidents."""

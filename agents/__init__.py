"""The speed layer: Kafka records are folded into state and leave as incidents."""

"""The speed layer: how events reach the fold from Kafka and how incidents leave it."""

"""Kafka for every layer: connections, topics, access rights, producers and announcements."""

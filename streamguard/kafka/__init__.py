"""Kafka code for all layers: connections, topics, access rights, producers and announcements."""

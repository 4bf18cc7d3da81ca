"""Incidents and campaigns of the topics, in SQLite."""

"""Finds anomalous events and users in a history: the forest, its gate, peer groups, and the assessment."""

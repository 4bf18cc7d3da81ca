"""Finds alerted events and users at risk in a history: the forest, its gate, peer groups, and the assessment."""

"""Decisions of people about incidents: the records, and what an incident is after them."""

"""Decisions of people about values of users: how they are signed, recognised, previewed and placed in a history."""

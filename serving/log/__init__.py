"""Reads whole topics of committed records, and states how far it is."""

"""Reads the record batches of a fetch within limits: what cannot be read becomes a value that says so."""

"""Compiled arithmetic whose results are identical to the bit on every machine."""

"""Compiled arithmetic with the same bits on every machine."""

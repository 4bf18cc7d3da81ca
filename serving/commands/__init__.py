"""Subcommands of the serving layer."""

"""Subcommands of the batch layer."""

"""Subcommands of `streamguard` that use the speed layer."""

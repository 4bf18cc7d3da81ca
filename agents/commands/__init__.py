"""The subcommands that run in the speed layer."""

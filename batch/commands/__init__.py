"""The subcommands that run in the batch layer."""

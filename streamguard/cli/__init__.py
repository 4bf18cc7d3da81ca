"""The command line: `streamguard` and those subcommands that need neither layer."""

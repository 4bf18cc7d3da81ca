"""The command line: the `streamguard` command and the subcommands that belong to neither layer."""

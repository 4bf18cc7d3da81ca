"""Every setting: its type and default, and how files, variables and options set it."""

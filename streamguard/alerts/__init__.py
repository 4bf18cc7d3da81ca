"""From evidence to what a person reads: risk, severity, incidents and their reasons."""

"""Analyses of incidents: from a file, or from the alerts topic."""

"""The campaigns process: reads incidents, computes campaigns in rounds, and publishes what has changed."""

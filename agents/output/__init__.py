"""What leaves the worker: incidents and dead letters."""

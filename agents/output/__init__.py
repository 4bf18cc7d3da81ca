"""Output of the worker: incidents and dead letters."""

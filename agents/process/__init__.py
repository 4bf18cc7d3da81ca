"""The worker process: start, Faust application, logging, health and exit."""

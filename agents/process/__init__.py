"""The worker process: start, Faust application, logging, and the port for metrics and health."""

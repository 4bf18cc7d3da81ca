"""A deterministic simulation of partitions: the worker's own code on a simulated broker, disk, clock and event loop."""

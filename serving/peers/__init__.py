"""Several servers of which each holds some partitions: who holds which, and asking the one that holds a profile."""

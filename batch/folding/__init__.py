"""Folds the offset range of one partition, summarises its users, stores the result in a file, and loads it."""

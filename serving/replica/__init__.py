"""Profiles of the state changelog, in RocksDB, exact at a source offset."""

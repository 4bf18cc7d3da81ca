"""The life of a forest: trained, written as an artifact, read back with suspicion, kept in a registry."""

"""How records reach a partition: the group, the fetch thread, and chunks in order."""

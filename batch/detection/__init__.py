"""Who and what stands out in a history: the forest, its gate, peer groups."""

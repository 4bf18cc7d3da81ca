"""Models: training of a forest, artifacts and their verification, the gate, and the registry."""

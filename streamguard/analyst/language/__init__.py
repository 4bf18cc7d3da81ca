"""An optional language model that words an analysis: it sees no text of the log, and code checks its answer."""

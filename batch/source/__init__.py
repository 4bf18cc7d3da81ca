"""Sources of history (a topic, an archive, files laid out like a topic), and the offsets that a run reads."""

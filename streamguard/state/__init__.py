"""One partition's state: folded chunk by chunk, bounded in memory, saved whole."""

"""One partition's offset_range of history: folded, summed up, kept in a file, loaded."""

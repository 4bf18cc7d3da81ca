"""One partition's stretch of history: folded, summed up, kept in a file, loaded."""

"""Cache directories, durable writes and file locks."""

"""Cache directories and durable writes."""

"""Events: their scored fields, the indicators found in their texts, and chunks of events as arrays."""

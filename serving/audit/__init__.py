"""The audit log: to whom which names were shown, as chained records of a topic, and its verification."""

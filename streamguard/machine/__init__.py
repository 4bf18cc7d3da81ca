"""What this machine has: a Java, jars, a place for caches."""

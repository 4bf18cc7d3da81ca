"""Java and the jars that the embedded Kafka and Spark need."""

"""What is explained, and how: session model, re-ranker, attribution. Knows no Kafka and no object store."""

"""Everything that talks to Kafka: the worker application, producers, admin clients, topics."""

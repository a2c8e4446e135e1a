"""The demonstration: a broker, traffic, a worker and an archive, and counts that must agree."""

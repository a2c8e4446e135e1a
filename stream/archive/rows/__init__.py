"""The archived rows, one for each impression, as columns in memory and as Parquet objects. Pure.

``slates`` has the schema, ``segment`` encodes objects, ``content`` computes a digest of rows that does not depend on
how they are stored, and ``partitioner`` tells in which partition Kafka puts a user.
"""

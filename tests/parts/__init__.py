"""The real parts the tests stand on: Apache Kafka, a schema registry and an S3 server.

Each is fetched once by the ordinary clients (`mvn`, `go`) into a folder outside the tree and runs as a child of whoever
asked for it. They work without pytest too: `python -m tests.parts.kafka` runs a broker until interrupted.
"""

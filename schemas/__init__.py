"""What crosses the bus: Avro schemas, typed records and the codec. Imports nothing else of ours."""

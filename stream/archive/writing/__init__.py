"""How rows get into the archive, once: from messages of the audit topic to a committed segment.

``decode`` (and ``avro``, its quick way) reads messages, ``sink`` keeps what is buffered for each partition, ``writer``
commits it: objects first, then the entry that names them.
"""

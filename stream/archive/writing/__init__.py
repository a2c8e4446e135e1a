"""Writing: from messages of the audit topic to committed segments, each impression exactly once.

``decode`` reads messages (``avro`` is its fast path), ``sink`` buffers them by partition, and ``writer`` commits the
buffers: objects first, then the entry that names them.
"""

"""The audit archive: every impression exactly once, in hash chains that anybody with read access can verify.

Its packages, each of which imports only those below it::

    writing   proof     from messages to committed segments  |  verification, signatures, receipts
    aging               compaction, tiering, erasure, expiry
    reading             finding rows and handing them out
    rows                the schema and the bytes of Parquet objects
    log                 commit entries, changes, holds
    store, s3, objects  the object store: a folder, S3, memory
"""

"""The audit archive: every impression once, in chains that anybody with read access can verify.

Its rooms, each of which knows only those below it::

    writing   proof     rows into the archive, once  |  why it can be believed
    aging               compacted, moved, erased, expired
    reading             found, and given out
    rows                what is archived
    log                 what is written down about it
    store, objects      where it lies: a folder, S3, memory
"""

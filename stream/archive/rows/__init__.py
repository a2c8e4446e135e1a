"""What is archived: the rows, one for each impression, as columns in memory and as Parquet objects.

Pure. ``slates`` has the schema, ``segment`` the bytes of an object, ``content`` a digest of what rows say however they
are stored.
"""

"""How rows are found and given out: by the commit entries and the changes, and nothing else.

``reader`` says what there is. Everything else is a way to ask for it: ``pull`` for the rows of one user, ``export``
into files, ``view`` in DuckDB, ``iceberg`` as a table, ``statistics`` for what was explained how.
"""

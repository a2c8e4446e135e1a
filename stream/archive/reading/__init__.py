"""Reading the archive, by its commit entries and changes.

``reader`` lists the objects that readers see. The others hand their rows out: ``pull`` finds the rows of one user,
``export`` writes files, ``view`` is a view in DuckDB, ``iceberg`` an Iceberg table, and ``statistics`` counts
explanations.
"""

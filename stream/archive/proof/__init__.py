"""Proof that the archive is complete and unchanged: verification, signed digests, and receipts of pulls.

``verify`` applies its rules to the chains and to the ``facts`` about objects, and returns ``findings``; ``removals``
has the rules about expiry and holds. ``sealing`` makes ``digests``, which sign the ends of the chains, and ``keys``. A
``receipt`` names the ``snapshot`` that the rows of a pull were taken from.
"""

"""Why the archive can be believed: rules, signatures, and receipts for what was handed out.

``verify`` applies the rules to the chains and to what ``facts`` found in objects. ``digests`` and ``keys``, made by
``sealing``, sign where the chains end; a ``receipt`` names the ``snapshot`` that an answer was taken from.
"""

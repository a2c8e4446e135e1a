"""What happens to archived rows later: compaction, the move to the cold tier, erasure and expiry.

``policy`` says when. ``tiers`` and ``erase`` are the tasks. They change a date and region by the transactions of
``maintenance``; ``compact`` makes the new objects.
"""

"""What becomes of rows as they age: compacted, moved to the cold tier, erased, expired.

``policy`` says when. ``tiers`` and ``erase`` are the tasks; ``stock`` is what such a task finds at a date and region,
and how it records what it did; ``compact`` makes the new objects.
"""

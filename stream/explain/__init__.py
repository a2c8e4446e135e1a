"""From impressions to explanations: pure, synchronous, columnar."""

"""Attribution methods: what features (``treeshap``) and past events (``ablation``) contribute to an item's score."""

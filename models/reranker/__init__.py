"""The LightGBM re-ranker: its ordered features, training and runtime."""

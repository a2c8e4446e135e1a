"""The LightGBM re-ranker: ordered features, training and runtime."""

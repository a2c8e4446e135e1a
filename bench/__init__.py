"""Benchmarks: each a ratio against a peer in the same run, or a rate beside the load that was asked for."""

"""Moments of others that can be told of: aggregates that many users share, never one user's own."""

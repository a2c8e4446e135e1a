"""The audit archive: segments, commit log and the store beneath them."""

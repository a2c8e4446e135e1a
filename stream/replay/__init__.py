"""Replay: an archived explanation is made again from its impression, and must come out the same."""

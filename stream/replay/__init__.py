"""Replay: explain an archived impression again and prove that the archived texts are what the models explain."""

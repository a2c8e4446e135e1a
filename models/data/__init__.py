"""Sources of interaction histories: the StreamRec simulator and MovieLens."""

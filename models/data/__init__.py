"""Where interactions come from: the StreamRec simulator and MovieLens."""

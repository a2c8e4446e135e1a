"""The demonstration: real traffic, a real worker, a count that must come out even."""

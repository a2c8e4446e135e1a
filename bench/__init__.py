"""Benchmarks: each a ratio against a peer in the same run, or a rate beside the load that was asked for.

A benchmark is a module with ``main(argv: Sequence[str] | None = None)``, which parses its own arguments, prints one
line about the machine and its figures, and with ``--json FILE`` writes the machine, the figures and every sample.
"""

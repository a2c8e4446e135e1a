"""One file per explanation type."""

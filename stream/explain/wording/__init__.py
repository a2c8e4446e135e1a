"""One file per locale."""

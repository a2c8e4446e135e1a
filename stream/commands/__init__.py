"""The commands of whyrec, one file per group."""

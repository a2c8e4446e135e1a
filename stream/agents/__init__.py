"""The Faust agents: explain and sink."""

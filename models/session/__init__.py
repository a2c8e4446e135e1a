"""The session transformer: definition, training, export (torch) and runtime (ONNX)."""

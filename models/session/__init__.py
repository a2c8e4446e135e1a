"""The session transformer: definition, training and export (PyTorch), and runtime (ONNX Runtime)."""

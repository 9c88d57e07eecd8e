"""SavedModels cut in parts: the dense part in ONNX Runtime, what only TensorFlow has beside it."""

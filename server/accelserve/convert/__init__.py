"""SavedModel -> ONNX, with proof. Imported by commands only: it needs TensorFlow and tf2onnx, the server does not."""

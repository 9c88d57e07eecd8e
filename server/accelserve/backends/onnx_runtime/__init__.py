"""ONNX models through ONNX Runtime, on the CPU and on NVIDIA GPUs; `backend` alone imports the library."""

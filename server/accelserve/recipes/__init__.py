"""The five networks of the original FPGA service, built as ONNX under its tensor names; imported by commands only."""

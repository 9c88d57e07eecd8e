"""Generated code from protos/ (make proto); edit the .proto files instead."""

"""Clients of the gRPC service. This package loads neither an engine nor a tokenizer."""

"""Student to ONNX, in several precisions, each behind an acceptance test."""

"""Exports a student to ONNX in several precisions, each of which must pass an acceptance test."""

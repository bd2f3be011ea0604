"""Accuracy, macro-F1, calibration error, confidence intervals and significance tests."""

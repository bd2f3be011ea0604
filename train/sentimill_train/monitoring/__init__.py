"""Monitors a model in use: tests for drift, and picks texts to label next."""

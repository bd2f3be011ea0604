"""Watches a model in use: drift, and which texts to label next."""

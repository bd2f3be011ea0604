"""Labelled reviews: reading, splitting and tokenizing them."""

"""Labelled reviews: reading, parsing, splitting and tokenizing them."""

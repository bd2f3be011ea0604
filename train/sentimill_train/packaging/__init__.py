"""Builds the files, the manifest and the model card of a bundle."""

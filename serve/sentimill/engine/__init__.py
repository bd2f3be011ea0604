"""Inference engines: token ids in, logits out."""

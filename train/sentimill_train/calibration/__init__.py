"""The temperature that calibrates confidence, and the threshold below which a model abstains."""

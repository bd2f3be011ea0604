"""Temperature scaling of confidence, and the threshold below which a model abstains."""

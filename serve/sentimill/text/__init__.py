"""Text to token ids: cleaning, limits and tokenization. Training and serving share this package."""

"""Asking a large model: budget, rate limit, cache, retries and batches."""

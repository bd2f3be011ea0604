"""Turns waiting texts into batches: admission, batch selection and the scheduler."""

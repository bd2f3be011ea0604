"""From waiting texts to batches: admission, the choice of a batch, the scheduler."""

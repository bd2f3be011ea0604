"""The training loop, its losses, optimizer and checkpoints, and training in several processes."""

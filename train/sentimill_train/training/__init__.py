"""The training loop, its losses, its optimizer, checkpoints and several processes."""

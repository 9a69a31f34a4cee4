"""Training: optimizer, one pure step, checkpoints, the loop."""

"""Training: the trainer, checkpoints and logs."""

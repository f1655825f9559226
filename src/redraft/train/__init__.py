"""Training: corruption, loss, data, loop. Never imports the engine."""

"""The sampler: arithmetic on [B, L] tensors. Never imports the model."""

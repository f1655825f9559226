"""The machinery of requests: the canvas loop, batches, prefix reuse. No tensor algebra of layers."""

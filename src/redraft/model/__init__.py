"""The DiffusionGemma text model: one backbone, two modes. Knows nothing of requests."""

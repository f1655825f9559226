"""How DiffusionGemma sees: from a picture's file to soft tokens."""

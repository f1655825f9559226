"""Puts `tests/` on the import path, for what the rooms of the suite share (`checkpoints.py`)."""

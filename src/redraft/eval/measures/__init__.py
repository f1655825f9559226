"""Figures of replies that need no reference."""

"""A reply as a notebook shows it."""

"""Typed questions answered by reading what the model would write, once: prompts, slots, options, doubt, calibration."""

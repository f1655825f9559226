"""Readers for the published quantised forms of a checkpoint: from the tensors of a file to floating point."""

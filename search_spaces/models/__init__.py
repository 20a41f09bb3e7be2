"""Checkpoints: what they are, as data."""

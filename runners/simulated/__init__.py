"""Serving predicted: kernel times, step times, a scheduler, and their closed form."""

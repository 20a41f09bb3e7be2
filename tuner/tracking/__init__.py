"""Trials as MLflow runs."""

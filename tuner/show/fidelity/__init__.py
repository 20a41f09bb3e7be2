"""Predictions held against what was measured, as tables, plots and pages."""

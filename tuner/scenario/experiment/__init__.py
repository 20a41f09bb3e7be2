"""Experiment files: what may stand in one, what is said of what may not, and the Scenario that each asks about."""

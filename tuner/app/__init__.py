"""Composition: what puts searches, studies, trackers and views together, for the terminal and for scripts."""

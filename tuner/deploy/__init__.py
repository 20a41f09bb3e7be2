"""The winner of a study as files that start it."""

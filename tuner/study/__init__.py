"""A study as it is stored, read back and judged."""

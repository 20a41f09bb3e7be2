"""The load client: what it sends and counts, when it stops early, and other load tools."""

"""Which to serve: the cheapest configuration that keeps its latency promise."""

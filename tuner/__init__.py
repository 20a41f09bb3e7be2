"""Which to serve: finds the cheapest configuration that meets the SLA."""

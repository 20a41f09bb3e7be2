"""Real servers: processes, readiness, failures, metrics, power."""

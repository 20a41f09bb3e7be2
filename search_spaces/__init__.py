"""What could be served: models, systems, and the configurations drawn from a search space."""

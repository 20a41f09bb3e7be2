"""What happened when it was served: measurements of a configuration under a workload."""

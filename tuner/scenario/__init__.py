"""What is asked: experiment files, the scenario, its SLA and its cost."""

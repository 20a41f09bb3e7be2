"""What people see: terminal, report, JSON."""

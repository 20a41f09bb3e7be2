"""What is sent: lengths, arrivals, traces."""

"""GPUs, the machines that hold them, and what they cost, as data."""

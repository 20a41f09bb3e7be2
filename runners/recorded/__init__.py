"""Published measurements, and the runner that replays them."""

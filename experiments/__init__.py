"""Short binaries, and experiments as data files."""

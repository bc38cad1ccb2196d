"""Grids of experiments: which arms, at what price, run by whom."""

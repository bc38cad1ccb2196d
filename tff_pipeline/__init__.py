"""Federated learning research where accuracy travels with its privacy cost."""

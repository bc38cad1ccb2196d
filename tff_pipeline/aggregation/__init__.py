"""Aggregators: what the server learns of the clients' values."""

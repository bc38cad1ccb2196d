"""Mechanisms, their price and the statement; see docs/privacy.md."""

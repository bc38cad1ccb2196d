"""The run directory: what is written, where, atomically."""

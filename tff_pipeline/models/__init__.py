"""Keras model factories, one per file: `build(...)` -> uncompiled model."""

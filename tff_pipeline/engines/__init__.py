"""Engines: each runs one round of any TFF `LearningProcess`."""

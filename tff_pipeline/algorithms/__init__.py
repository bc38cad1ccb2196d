"""Federated algorithms: one paper, one file -> a TFF `LearningProcess`."""

"""Short builders of common records, for experiment files."""

from typing import Any

from tff_pipeline.config import choices
from tff_pipeline.config import privacy
from tff_pipeline.config import training


def poisson(clients_per_round: int | None = None) -> training.Cohort:
  """Returns Poisson cohorts of this expected size."""
  return training.Cohort(
    sampling=choices.Sampling.POISSON, clients_per_round=clients_per_round
  )


def fixed_size(clients_per_round: int | None = None) -> training.Cohort:
  """Returns cohorts of exactly this size, drawn without replacement."""
  return training.Cohort(
    sampling=choices.Sampling.FIXED_SIZE, clients_per_round=clients_per_round
  )


def full() -> training.Cohort:
  """Returns full participation: every client in every round."""
  return training.Cohort(sampling=choices.Sampling.FULL)


def no_privacy() -> privacy.Privacy:
  """Returns training without a mechanism; its epsilon is infinite."""
  return privacy.Privacy(mechanism=choices.Mechanism.NONE)


def gaussian(**leaves: Any) -> privacy.Privacy:
  """Returns the user-level Gaussian mechanism with a fixed clip norm."""
  return privacy.Privacy(mechanism=choices.Mechanism.GAUSSIAN, **leaves)

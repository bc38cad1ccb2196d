"""Terms to price, in tests of the privacy rooms."""

from tff_pipeline import config


def make(
  privacy: config.Privacy,
  cohort: config.Cohort,
  *,
  epochs: int = 1,
  batch_size: int = 4,
  seed: int = 0,
) -> config.Terms:
  """Returns the terms of a federated run."""
  return config.Terms(
    privacy=privacy,
    cohort=cohort,
    client=config.Client(
      epochs=epochs, batch_size=batch_size, learning_rate=0.1
    ),
    algorithm=config.Algorithm(),
    seed=seed,
  )


def centralized(
  privacy: config.Privacy, batches: str, *, epochs: int = 1, batch_size: int = 4
) -> config.Terms:
  """Returns the terms of a run on pooled data."""
  return config.Terms(
    privacy=privacy,
    cohort=config.full(),
    client=config.Client(
      epochs=epochs, batch_size=batch_size, learning_rate=0.1
    ),
    algorithm=config.Algorithm(name='centralized', batches=batches),
    seed=0,
  )

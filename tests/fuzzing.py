"""How many inputs a fuzzing test draws, always the same ones."""

import hypothesis


def many(examples: int) -> hypothesis.settings:
  """Returns settings for so many inputs, without a limit of time for one."""
  return hypothesis.settings(
    max_examples=examples,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
  )

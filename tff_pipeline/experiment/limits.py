"""What is solved before a run: a leaf for a target, the last round."""

from collections.abc import Mapping
import logging
import math
from typing import Any

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import calibration
from tff_pipeline.privacy import ledger as ledgers

_log = logging.getLogger(__name__)
_NOTHING = ledgers.Releases(0)


def solve(
  experiment: config.Experiment, record: Mapping[str, Any] | None
) -> tuple[config.Experiment, dict[str, Any] | None]:
  """Returns the config with its target epsilon solved, and the solution."""
  if experiment.privacy.target_epsilon is None:
    return experiment, None
  if record is not None:
    solution = record['solved']
  else:
    _log.info('Solving for epsilon %s ...', experiment.privacy.target_epsilon)
    found = calibration.solve(
      config.terms(experiment), rounds=experiment.rounds
    )
    solution = {
      'leaf': found.leaf,
      'value': found.value,
      'target_epsilon': found.target_epsilon,
    }
  solved = config.with_solution(experiment, solution['leaf'], solution['value'])
  return solved, solution


def last_round(
  experiment: config.Experiment,
  guaranteed: accounting.Guarantee,
  *,
  max_epsilon: float | None,
  started: ledgers.Releases = _NOTHING,
) -> int:
  """Returns the last round that a run may have.

  Args:
    experiment: The config with nothing left to solve.
    guaranteed: Its guarantee.
    max_epsilon: Largest epsilon, if there is a limit.
    started: What the rounds that have started will have released.

  Raises:
    UsageError: If these rounds, or the first one, already exceed the limit.
  """
  if max_epsilon is None:
    return experiment.rounds
  last = calibration.max_rounds(
    guaranteed,
    delta=experiment.privacy.delta,
    epsilon=max_epsilon,
    limit=experiment.rounds,
    recorded=started,
  )
  least = max(1, started.rounds)
  if last < least:
    raise validate.error(
      'max_epsilon',
      expected=f'at least the epsilon of round {least}'
      + (', which has started before' if started.rounds else ''),
      found=max_epsilon,
      remedy='Raise it',
    )
  return last


def check_stop_at_accuracy(
  stop_at_accuracy: float | None, privacy: config.Privacy
) -> None:
  """Refuses what is no accuracy, and to stop a private run by what it released.

  Epsilon of a number of rounds is a guarantee if that number does not depend on
  the models released (Rogers et al. 2016, arXiv:1605.08294).

  Args:
    stop_at_accuracy: What was asked for, if anything was.
    privacy: Of the run.

  Raises:
    UsageError: If it is refused.
  """
  if stop_at_accuracy is None:
    return
  validate.check_number(
    'stop_at_accuracy', stop_at_accuracy, above=0.0, at_most=1.0
  )
  noiseless = privacy.mechanism is config.Mechanism.NONE
  if not noiseless and privacy.noise_multiplier != 0:
    raise validate.error(
      'stop_at_accuracy',
      expected=f'no value with --privacy.mechanism={privacy.mechanism}: where '
      'such a run stops would depend on what it released, and epsilon of its '
      'rounds would be no guarantee',
      found=stop_at_accuracy,
      remedy='Run all rounds; the report says which one reached an accuracy',
    )


def wanted_accuracy(
  stop_at_accuracy: float | None, *, metrics: Mapping[str, float]
) -> float:
  """Returns the held-out accuracy at which a run ends; infinity for never.

  Args:
    stop_at_accuracy: What was asked for, if anything was.
    metrics: What an evaluation gives.

  Raises:
    UsageError: If the task has no accuracy.
  """
  if stop_at_accuracy is None:
    return math.inf
  if 'accuracy' not in metrics:
    raise validate.error(
      'stop_at_accuracy',
      expected='no value, since this task has no accuracy, but '
      + ', '.join(metrics),
      found=stop_at_accuracy,
    )
  return stop_at_accuracy

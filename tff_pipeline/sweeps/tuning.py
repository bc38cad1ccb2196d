"""Search for good settings, with Optuna, which an optional extra installs.

Every trial trains on the same private data, and the best one is chosen by
looking at results: no epsilon of a single run pays for that. The number of
trials is kept in `sweep.json`, and the report shows it beside every epsilon.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

from tff_pipeline import config
from tff_pipeline import config_flags
from tff_pipeline import validate

_BETWEEN = '..'
_LOG = ':log'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
  """Numbers between two, both included.

  Attributes:
    low: The smallest.
    high: The largest.
    whole: Whether only whole numbers are meant.
    log: Whether the logarithm is searched evenly.
  """

  low: float
  high: float
  whole: bool
  log: bool


Space = Mapping[str, Range | tuple[Any, ...]]
"""Dotted leaf -> what is searched: a range, or one of some values."""


def parse(leaf: str, text: str) -> Range | tuple[Any, ...]:
  """Returns what is searched for a leaf: `0.1..10:log`, `1..5` or `sgd,adam`.

  Raises:
    UsageError: If it is none of these, or not of the leaf's type.
  """
  bounds, log, rest = text.partition(_LOG)
  is_range = _BETWEEN in bounds
  parts = bounds.split(_BETWEEN) if is_range else text.split(',')
  try:
    values = [_value(leaf, part.strip()) for part in parts]
  except validate.UsageError:
    raise
  except ValueError as e:
    raise _refused(leaf, text) from e
  if not is_range:
    return tuple(values)
  if len(values) != 2 or rest or isinstance(values[0], str):
    raise _refused(leaf, text)
  low, high = values
  if not low < high or (log and low <= 0):
    raise _refused(leaf, text)
  return Range(low=low, high=high, whole=isinstance(low, int), log=bool(log))


def _value(leaf: str, text: str) -> Any:
  field = config_flags.leaves()[leaf]
  value = config_flags.parse_leaf(field, text)
  return config.checked_leaf(f'tune.{leaf}', field, value)


def _refused(leaf: str, text: str) -> validate.UsageError:
  return validate.error(
    f'tune.{leaf}',
    expected='LOW..HIGH, LOW..HIGH:log with LOW above 0, or VALUE,VALUE',
    found=text,
  )


class Study:
  """Asks for trials and is told their results; a function of these alone.

  A study that is told the same results again asks for the same next trial, so
  nothing but the results has to be kept to continue.
  """

  def __init__(self, space: Space, *, maximize: bool, seed: int):
    """Starts with nothing known.

    Args:
      space: What is searched.
      maximize: Whether larger results are better.
      seed: Decides what is tried; never DP noise.

    Raises:
      UsageError: If Optuna is not installed.
    """
    try:
      import optuna
    except ImportError as e:
      raise validate.error(
        'tune.trials',
        expected="Optuna: pip install 'optuna==5.0.0', the extra `tune` of "
        'pyproject.toml',
        found='none',
      ) from e
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    self._optuna = optuna
    self._distributions = {
      leaf: _distribution(optuna, searched) for leaf, searched in space.items()
    }
    # Asked and told results in step; the sampler's own state is its seed.
    self._new = lambda number: optuna.create_study(
      direction='maximize' if maximize else 'minimize',
      sampler=optuna.samplers.TPESampler(seed=seed + number),
    )
    self._told: list[Any] = []

  def tell(self, point: Mapping[str, Any], result: float) -> None:
    """Records what a trial gave; NaN if it failed."""
    optuna = self._optuna
    failed = math.isnan(result)
    self._told.append(
      optuna.trial.create_trial(
        params=dict(point),
        distributions=self._distributions,
        value=None if failed else result,
        state=optuna.trial.TrialState.FAIL
        if failed
        else optuna.trial.TrialState.COMPLETE,
      )
    )

  def ask(self, number: int) -> list[dict[str, Any]]:
    """Returns so many points to try side by side."""
    points = []
    for i in range(number):
      study = self._new(len(self._told) + i)
      study.add_trials(self._told)
      trial = study.ask(self._distributions)
      points.append({leaf: trial.params[leaf] for leaf in self._distributions})
    return points


def _distribution(optuna: Any, searched: Range | tuple[Any, ...]) -> Any:
  if isinstance(searched, tuple):
    return optuna.distributions.CategoricalDistribution(
      [str(v) if isinstance(v, str) else v for v in searched]
    )
  kind = (
    optuna.distributions.IntDistribution
    if searched.whole
    else optuna.distributions.FloatDistribution
  )
  return kind(searched.low, searched.high, log=searched.log)


def unique(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """Returns points without repetitions, in order."""
  found: list[dict[str, Any]] = []
  for point in points:
    if dict(point) not in found:
      found.append(dict(point))
  return found

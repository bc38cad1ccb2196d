"""What a sweep costs before anything trains: epsilon, time, memory.

Epsilon comes from the config alone. Time and memory come from a probe: the
first rounds of one run of each kind, in a process of its own.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
from typing import Any

from tff_pipeline import config
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import calibration
from tff_pipeline.privacy import guarantees
from tff_pipeline.sweeps import design

# Leaves that decide nothing about how long a round takes.
_TIMELESS = (
  'privacy.noise_multiplier',
  'privacy.clip_norm',
  'privacy.delta',
  'privacy.target_epsilon',
  'privacy.relation',
  'privacy.noise_seed',
  'client.learning_rate',
  'server.learning_rate',
  'rounds',
  'seed',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Price:
  """What one run will have released when it ends.

  Attributes:
    epsilon: The headline; infinite where nothing is noised.
    accountant: Which accountant gave it.
    guarantee: What it is about.
    delta: Its delta; `None` without a mechanism.
    rounds: Planned rounds, solved if they were a target's leaf.
    solved: Leaf and value that a target epsilon was solved for.
  """

  epsilon: float
  accountant: str
  guarantee: accounting.Guarantee
  delta: float | None
  rounds: int
  solved: tuple[str, float | int] | None = None


def prices(runs: Sequence[design.Planned]) -> list[Price]:
  """Returns the price of each run, in order; no TensorFlow is needed.

  Raises:
    UsageError: If one cannot be priced, or a target cannot be kept.
  """
  known: dict[str, Price] = {}
  found = []
  for run in runs:
    key = _priced_leaves(run)
    if key not in known:
      known[key] = _price(config.to_dict(run.experiment))
    found.append(known[key])
  return found


def _priced_leaves(run: design.Planned) -> str:
  """Returns what a price is a function of, as text.

  The seed decides who took part, which matters where each client has its own.
  """
  values = config.to_dict(run.experiment)
  by_client = ('local', 'dp_sgd')
  privacy = values['privacy']
  if (
    privacy['mechanism'] not in by_client
    and 'example_noise_multiplier' not in privacy
  ):
    values.pop('seed')
  names = ('privacy', 'cohort', 'client', 'algorithm', 'rounds', 'seed')
  return json.dumps([values.get(name) for name in names], sort_keys=True)


def _price(values: Mapping[str, Any]) -> Price:
  experiment = config.from_dict(values)
  solved = None
  if experiment.privacy.target_epsilon is not None:
    solution = calibration.solve(
      config.terms(experiment), rounds=experiment.rounds
    )
    solved = (solution.leaf, solution.value)
    experiment = config.with_solution(experiment, *solved)
  guaranteed = guarantees.build(config.terms(experiment))
  best = accounting.headline(
    guaranteed, experiment.rounds, delta=experiment.privacy.delta
  )
  return Price(
    epsilon=best.epsilon,
    accountant=best.accountant,
    guarantee=guaranteed,
    delta=experiment.privacy.delta,
    rounds=experiment.rounds,
    solved=solved,
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
  """What the first rounds of one run took, alone on the machine.

  Attributes:
    rounds: How many there were.
    seconds: From start to end of the process.
    seconds_a_round: Of the later rounds, evaluation and accounting included.
    bytes: Largest resident memory.
  """

  rounds: int
  seconds: float
  seconds_a_round: float
  bytes: float

  def estimate(self, rounds: int) -> float:
    """Returns the seconds that a run of so many rounds takes, start included.

    >>> probe = Probe(rounds=4, seconds=10., seconds_a_round=.5, bytes=1e9)
    >>> probe.estimate(44)
    30.0
    """
    return max(
      0.0, self.seconds + (rounds - self.rounds) * self.seconds_a_round
    )


def probe(
  seconds: float,
  rows: Sequence[Mapping[str, float]],
  *,
  evaluate_every: int,
) -> Probe:
  """Returns what the rows of a short run say.

  Args:
    seconds: Of the whole process.
    rows: Of `metrics.csv`; the first one, which compiles, is not a measure.
    evaluate_every: Rounds between evaluations; the last row has one.
  """
  extra = [r['evaluate_seconds'] + r['price_seconds'] for r in rows]
  later = [row['whole_seconds'] - e for row, e in zip(rows, extra, strict=True)]
  return Probe(
    rounds=len(rows),
    seconds=seconds,
    seconds_a_round=_median(later[1:]) + extra[-1] / evaluate_every,
    bytes=max(row['rss_mb'] for row in rows) * 2**20,
  )


def _median(values: Sequence[float]) -> float:
  return sorted(values)[len(values) // 2] if values else 0.0


def kind(run: design.Planned) -> str:
  """Returns what the time of a round depends on: equal texts, equal times."""
  values = config.to_dict(run.experiment)
  flat = {
    f'{section}.{leaf}': value
    for section, leaves in values.items()
    if isinstance(leaves, Mapping)
    for leaf, value in leaves.items()
  } | {k: v for k, v in values.items() if not isinstance(v, Mapping)}
  return json.dumps(
    {k: v for k, v in flat.items() if k not in _TIMELESS}, sort_keys=True
  )


def makespan(seconds: Sequence[float], *, processes: int) -> float:
  """Returns how long runs take side by side, each started when one ends.

  >>> makespan([3.0, 1.0, 1.0, 1.0], processes=2)
  3.0
  """
  lanes = [0.0] * max(1, processes)
  for duration in seconds:
    lanes[lanes.index(min(lanes))] += duration
  return max(lanes)

"""Run directories without training: real configs, ledgers and statements.

Their metrics are made up: a curve that grows to a given value. So the modules
that read runs are tested without TensorFlow.
"""

import dataclasses
import json
import math
import pathlib
from typing import Any

from tff_pipeline import config
from tff_pipeline.outputs import run_directory
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import guarantees
from tff_pipeline.privacy import statement

ROUNDS = 6


def build(**changes: Any) -> config.Experiment:
  """Returns a small experiment, with these leaves of its own."""
  whole = config.Experiment(
    task=config.Task(name='digits', partition='iid', clients=60),
    cohort=config.poisson(6),
    client=config.Client(batch_size=10, learning_rate=0.2),
    server=config.Server(learning_rate=1.0),
    privacy=privacy(),
    rounds=ROUNDS,
  )
  return dataclasses.replace(whole, **changes)


def privacy(noise_multiplier: float = 1.0, **changes: Any) -> config.Privacy:
  """Returns a Gaussian mechanism."""
  leaves = {'clip_norm': 0.5, 'delta': 1e-3, 'population': 60} | changes
  return config.gaussian(noise_multiplier=noise_multiplier, **leaves)


def extrapolated() -> config.Privacy:
  """Returns the noise and the price of larger cohorts."""
  return privacy(population=6000, noise_cohort_size=600, delta=1e-5)


def write(
  folder: pathlib.Path,
  experiment: config.Experiment,
  *,
  accuracy: float = 0.8,
  rounds: int | None = None,
  sizes: int = 6,
  columns: dict[str, float] | None = None,
  communication: dict[str, float] | None = None,
) -> pathlib.Path:
  """Writes a run directory, finished unless fewer rounds are asked for.

  Args:
    folder: The run directory.
    experiment: Its config.
    accuracy: Held-out accuracy of the last planned round.
    rounds: Rounds that it has done.
    sizes: Realised cohort size of every round.
    columns: Further columns, constant.
    communication: What was sent, as the summary says it.
  """
  rounds = experiment.rounds if rounds is None else rounds
  folder.mkdir(parents=True)
  record = {
    'config': config.to_dict(experiment),
    'versions': {'python': '3.11', 'numpy': '1.25.2'},
    'git_revision': 'abc',
    'argv': ['train'],
    'started': '2026-11-24T08:00:00+00:00',
  }
  run_directory.write_json(folder / 'config.json', {'format': 1, **record})
  (folder / 'metrics.csv').write_text(
    _metrics(experiment, rounds, accuracy, sizes, columns or {})
  )
  (folder / 'ledger').write_text(
    ''.join(
      json.dumps({'round': r, 'attempt': 1, 'noise_key': 'abcd'}) + '\n'
      for r in range(1, rounds + 1)
    )
  )
  if rounds == experiment.rounds:
    stated = statement.build(config.terms(experiment), released=rounds)
    run_directory.write_json(folder / 'privacy.json', stated)
    run_directory.write_json(
      folder / 'summary.json',
      {
        'status': 'finished',
        'rounds': rounds,
        'test': {'accuracy': accuracy},
        'privacy': stated,
        'versions': record['versions'],
      }
      | ({'communication': communication} if communication else {}),
    )
  return folder


def _metrics(
  experiment: config.Experiment,
  rounds: int,
  accuracy: float,
  sizes: int,
  columns: dict[str, float],
) -> str:
  guaranteed = guarantees.build(config.terms(experiment))
  delta = experiment.privacy.delta
  lines = []
  for r in range(1, rounds + 1):
    evaluated = r % experiment.evaluate_every == 0 or r == experiment.rounds
    row = {
      'round': r,
      'unnoised_cohort_size': sizes,
      'epsilon': accounting.headline(guaranteed, r, delta=delta).epsilon
      if evaluated
      else math.nan,
      'epsilon_rdp': accounting.epsilon(
        guaranteed, r, delta=delta, accountant='rdp'
      ),
      'unnoised_train_accuracy': 0.9,
      'test_loss': 1.0 / r if evaluated else math.nan,
      'test_accuracy': accuracy * r / experiment.rounds
      if evaluated
      else math.nan,
      **columns,
    }
    if not lines:
      lines.append(','.join(row))
    lines.append(','.join(str(value) for value in row.values()))
  return ''.join(line + '\n' for line in lines)

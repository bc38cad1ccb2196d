"""Schedules, roundings and attackers follow the round, so that resume holds."""

import pytest

from tests import small_runs
from tff_pipeline import config
from tff_pipeline import experiment

pytestmark = pytest.mark.usefixtures('without_reports')
_SCHEDULE = {
  'warmup_rounds': 2,
  'decay': 'exponential',
  'decay_rounds': 2,
  'decay_factor': 0.3,
}


def test_resumed_run_is_the_uninterrupted_one(tmp_path):
  wanted = small_runs.build(
    client=config.Client(batch_size=10, learning_rate=0.3, **_SCHEDULE),
    server=config.Server(learning_rate=1.0, momentum=0.5, **_SCHEDULE),
    compression=config.Compression(
      name='quantization',
      bits=4,
      rounding='stochastic',
      rotation='hadamard',
      broadcast_bits=10,
    ),
    attack=config.Attack(name='scaled_update', share=0.2, scale=2.0),
    evaluate_clients_every=4,
  )
  with small_runs.cached_parts():
    experiment.run(wanted, tmp_path / 'whole')
    small_runs.crashed(wanted, tmp_path / 'crashed', in_round=4)
    experiment.run(wanted, tmp_path / 'crashed')
  small_runs.assert_same_rows(
    *(_without_nan(tmp_path / name) for name in ('whole', 'crashed'))
  )


def _without_nan(folder):
  rows = small_runs.rows(folder)
  assert len(rows) == small_runs.ROUNDS
  return [{k: v for k, v in row.items() if v != 'nan'} for row in rows]

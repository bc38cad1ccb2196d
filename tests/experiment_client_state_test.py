"""Whole runs of the algorithms whose clients keep a state."""

import numpy as np
import pytest
import tensorflow as tf

from tests import small_runs
from tff_pipeline import config
from tff_pipeline import experiment
from tff_pipeline.experiment import building

_CHANGES = {
  'scaffold': {'algorithm': config.Algorithm(name='scaffold')},
  'fed_dyn': {
    'algorithm': config.Algorithm(name='fed_dyn', regularization_strength=0.5)
  },
  'error_feedback': {
    'compression': config.Compression(
      name='top_k', kept_share=0.1, error_feedback='on'
    )
  },
}
_QUICK = ('scaffold',)
each = pytest.mark.parametrize(
  'changes',
  [
    pytest.param(
      changes, id=name, marks=[] if name in _QUICK else pytest.mark.slow
    )
    for name, changes in _CHANGES.items()
  ],
)


@each
def test_resumed_run_is_the_uninterrupted_one(changes, tmp_path):
  """Round 5 is lost, so that states and weights roll back to round 4."""
  wanted = small_runs.build(
    privacy=config.no_privacy(),
    server=config.Server(learning_rate=1.0),
    **changes,
  )
  whole, crashed = tmp_path / 'whole', tmp_path / 'crashed'
  with small_runs.cached_parts(), small_runs.without_reports():
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(small_runs.noise_keys, 'draw', lambda: small_runs.KEYS[0])
      experiment.run(wanted, whole)
      with (
        small_runs.crash_in(5, trained=True),
        pytest.raises(small_runs.Crash),
      ):
        experiment.run(wanted, crashed)
      experiment.run(wanted, crashed)
    small_runs.assert_same(crashed, whole, wanted)
    parts = building.build(wanted, noise_key=small_runs.KEYS[0])
    small_runs.assert_same_client_states(crashed, whole, parts.engine)
    _, states = small_runs.client_states(whole, parts.engine)
  assert 0 < len(states) < parts.task.train.num_clients
  largest = max(
    np.abs(leaf).max()
    for state in states.values()
    for leaf in tf.nest.flatten(state)
  )
  assert largest > 1e-3

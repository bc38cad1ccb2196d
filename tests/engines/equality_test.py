"""One process, three ways to run it, one result.

Each row of the table is a kind of model and a mechanism. It is trained on
clients of unequal sizes and cohorts of varying size, by `in_process` and by
`tff_runtime` with the same noise key; and, where TFF has the algorithm, noise
off, by TFF's own builder on TFF's runtime. `pytest -rP` shows the largest
difference of each row.
"""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import small_models
from tff_pipeline import config
from tff_pipeline.algorithms import fed_avg
from tff_pipeline.client_work import training_loop
from tff_pipeline.data import client_data
from tff_pipeline.engines import engine as engines
from tff_pipeline.engines import measurements
from tff_pipeline.privacy import mechanisms

_MODELS = {
  'dense': small_models.dense,
  'convolutional': small_models.conv,
  'recurrent': small_models.lstm,
  'embedding': small_models.embedding,
}
_SIZES = (1, 7, 12, 3, 20, 5, 8)
_COHORTS = ([0, 3, 4], [5], [1, 2, 3, 4, 6])
_EMPTY = []
_EXPECTED = 3.0
_CLIP = 0.05
_TOLERANCE = 2e-6
_SCHEDULE = training_loop.Schedule(
  epochs=2, batch_size=5, shuffle=config.Shuffle.OFF
)
_M = config.Mechanism
sgd = tff.learning.optimizers.build_sgdm


@dataclasses.dataclass(frozen=True)
class _Row:
  """A mechanism, and what TFF calls it with the noise off.

  Attributes:
    privacy: The mechanism.
    weighting: Weights of updates, without user-level privacy.
    stock: (model_fn) -> TFF's process; `None` if TFF has none.
  """

  privacy: config.Privacy
  weighting: config.Weighting = config.Weighting.UNIFORM
  stock: object = None


def _privacy(mechanism, noise_multiplier, **leaves):
  return config.Privacy(
    mechanism=mechanism,
    noise_multiplier=noise_multiplier,
    clip_norm=_CLIP,
    delta=1e-3,
    population=len(_SIZES),
    **leaves,
  )


def _stock_mean(model_fn):
  return tff.learning.algorithms.build_unweighted_fed_avg(
    model_fn, sgd(0.1), sgd(1.0)
  )


def _stock_weighted(model_fn):
  return tff.learning.algorithms.build_weighted_fed_avg(
    model_fn, sgd(0.1), sgd(1.0)
  )


def _stock_gaussian(model_fn):
  return tff.learning.algorithms.build_unweighted_fed_avg(
    model_fn,
    sgd(0.1),
    sgd(1.0),
    model_aggregator=tff.aggregators.DifferentiallyPrivateFactory.gaussian_fixed(
      noise_multiplier=0.0, clients_per_round=_EXPECTED, clip=_CLIP
    ),
  )


_ROWS = {
  'none': _Row(config.Privacy(mechanism=_M.NONE), stock=_stock_mean),
  'none_weighted': _Row(
    config.Privacy(mechanism=_M.NONE),
    config.Weighting.NUM_EXAMPLES,
    _stock_weighted,
  ),
  'gaussian_noise_off': _Row(_privacy(_M.GAUSSIAN, 0.0), stock=_stock_gaussian),
  'gaussian': _Row(_privacy(_M.GAUSSIAN, 0.5)),
  'gaussian_adaptive': _Row(
    _privacy(
      _M.GAUSSIAN_ADAPTIVE,
      0.5,
      target_quantile=0.5,
      clip_learning_rate=0.2,
      clipped_count_stddev=1.5,
    )
  ),
  'local': _Row(_privacy(_M.LOCAL, 0.5)),
  'dp_sgd': _Row(_privacy(_M.DP_SGD, 0.5)),
  'gaussian_and_dp_sgd': _Row(
    _privacy(
      _M.GAUSSIAN,
      0.5,
      example_noise_multiplier=0.5,
      example_clip_norm=0.1,
    )
  ),
}
_QUICK = {('dense', 'none'), ('recurrent', 'none_weighted')}
_CASES = [
  pytest.param(
    model,
    mechanism,
    marks=() if (model, mechanism) in _QUICK else pytest.mark.slow,
    id=f'{model}-{mechanism}',
  )
  for model in _MODELS
  for mechanism in _ROWS
]


def _data(model):
  parts = [
    small_models.examples(model, n, seed=i) for i, n in enumerate(_SIZES)
  ]
  offsets = np.concatenate([[0], np.cumsum(_SIZES)]).astype(np.int64)
  return client_data.ClientData(
    client_data.Examples(*map(np.concatenate, zip(*parts, strict=True))),
    offsets,
  )


def _process(model, row):
  return fed_avg.build(
    model,
    client_optimizer=sgd(0.1),
    server_optimizer=sgd(1.0),
    schedule=_SCHEDULE,
    protection=mechanisms.protection(row.privacy),
    aggregator=mechanisms.aggregator(
      row.privacy, expected_cohort=_EXPECTED, noise_key=(5, -6)
    ),
    weighting=row.weighting,
  )


def _run(name, process, data, start=None, cohorts=_COHORTS):
  """Returns the first state, and weights and metrics of each round."""
  with engines.build(
    name, process, data=data, schedule=_SCHEDULE, seed=3, noise_key=(5, -6)
  ) as engine:
    first = state = engine.initialize()
    if start is not None:
      state = state._replace(global_model_weights=start)
    outputs = []
    for number, clients in enumerate(cohorts, start=1):
      done = engine.round(
        state, round_num=number, clients=np.array(clients, np.int64)
      )
      state = done.state
      trained = [np.asarray(w) for w in state.global_model_weights.trainable]
      outputs.append((trained, measurements.columns(done.metrics)))
  return first, outputs


def _largest_difference(ours, theirs):
  """Returns that of the weights; asserts that common metrics agree."""
  for (_, found), (_, expected) in zip(ours, theirs, strict=True):
    common = found.keys() & expected.keys()
    assert {'unnoised_train_loss', 'unnoised_train_num_examples'} <= common
    for name in common:
      np.testing.assert_allclose(
        found[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name
      )
  return max(
    np.abs(one - other).max()
    for (found, _), (expected, _) in zip(ours, theirs, strict=True)
    for one, other in zip(found, expected, strict=True)
  )


def _stock(model_name, row):
  model = small_models.build(_MODELS[model_name])

  def model_fn():
    return tff.learning.models.from_keras_model(
      _MODELS[model_name](),
      loss=small_models.loss(),
      input_spec=model.input_spec,
      metrics=[tf.keras.metrics.SparseCategoricalAccuracy('accuracy')],
    )

  return row.stock(model_fn)


@pytest.mark.parametrize('model_name, mechanism', _CASES)
def test_every_way_gives_the_same_model(model_name, mechanism, record_property):
  row = _ROWS[mechanism]
  model = small_models.build(_MODELS[model_name])
  data = _data(model)
  process = _process(model, row)
  # TFF's unweighted mean of nobody is undefined.
  cohorts = [*_COHORTS, _EMPTY, _COHORTS[0]]
  start, ours = _run('in_process', process, data, cohorts=cohorts)
  moved = max(
    np.abs(one - other).max()
    for one, other in zip(ours[0][0], ours[2][0], strict=True)
  )
  assert moved > 100 * _TOLERANCE
  _, runtime = _run('tff_runtime', process, data, cohorts=cohorts)
  found = {'tff_runtime': _largest_difference(ours, runtime)}
  if row.stock is not None:
    _, stock = _run(
      'tff_runtime',
      _stock(model_name, row),
      data,
      start=start.global_model_weights,
    )
    found['stock'] = _largest_difference(ours[: len(_COHORTS)], stock)
  for name, difference in found.items():
    record_property(f'largest difference to {name}', float(difference))
    print(f'{model_name}, {mechanism}: {difference:.1e} from {name}')
    assert difference < _TOLERANCE

"""The in-process engine is held equal to TFF's runtime, process by process."""

import collections

import numpy as np
import psutil
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline import config
from tff_pipeline import tasks
from tff_pipeline import validate
from tff_pipeline.client_work import protection
from tff_pipeline.client_work import training_loop
from tff_pipeline.data import client_data
from tff_pipeline.engines import engine as engines
from tff_pipeline.engines import feeds
from tff_pipeline.engines import in_process
from tff_pipeline.engines import measurements
from tff_pipeline.engines import tff_runtime
from tff_pipeline.models import functional

_KEY = (5, -6)
_SCHEDULE = training_loop.Schedule(
  epochs=2, batch_size=5, shuffle=config.Shuffle.ON
)
# Unequal cohorts, an empty one, and one client alone.
_COHORTS = ([0, 3, 4, 9, 11], [7], [], [1, 2, 3, 30])
# Float32 sums in another order: a few units in the last place, compounded over
# the rounds.
_TOLERANCE = 5e-6

sgd = tff.learning.optimizers.build_sgdm


@pytest.fixture(scope='module')
def task():
  return tasks.build(
    config.Task(
      name='digits', partition='dirichlet', clients=40, concentration=1.0
    ),
    seed=0,
  )


@pytest.fixture(scope='module')
def unequal(task):
  """Digits dealt to 40 clients of one to many examples."""
  sizes = 1 + np.arange(39) % 17
  offsets = np.concatenate([[0], np.cumsum(sizes)])
  offsets = np.append(offsets, offsets[-1] + 90).astype(np.int64)
  examples = client_data.Examples(
    task.train.examples.x[: offsets[-1]], task.train.examples.y[: offsets[-1]]
  )
  return client_data.ClientData(examples, offsets)


@pytest.fixture(scope='module')
def model_fn(task):
  def build():
    return tff.learning.models.from_keras_model(
      task.model_factory(),
      loss=task.loss_factory(),
      input_spec=task.input_spec,
      metrics=[lambda: tf.keras.metrics.SparseCategoricalAccuracy()],
    )

  return build


def _rounds(engine, state):
  outputs = []
  for number, clients in enumerate(_COHORTS, start=1):
    done = engine.round(
      state, round_num=number, clients=np.array(clients, np.int64)
    )
    state = done.state
    weights = [np.asarray(w) for w in state.global_model_weights.trainable]
    outputs.append((weights, measurements.columns(done.metrics)))
  return outputs


def _assert_equal_on_both_engines(process, data, *, schedule=_SCHEDULE):
  settings = {
    'data': data,
    'schedule': schedule,
    'seed': 3,
    'noise_key': _KEY,
  }
  found = {}
  with engines.build(
    config.EngineName.IN_PROCESS, process, **settings
  ) as engine:
    start = engine.initialize()
    found['in_process'] = _rounds(engine, start)
  with engines.build(
    config.EngineName.TFF_RUNTIME, process, **settings
  ) as engine:
    found['tff_runtime'] = _rounds(engine, start)
  for ours, theirs in zip(*found.values(), strict=True):
    for one, other in zip(ours[0], theirs[0], strict=True):
      np.testing.assert_allclose(one, other, atol=_TOLERANCE, rtol=0)
    assert ours[1].keys() == theirs[1].keys()
    for name, value in ours[1].items():
      np.testing.assert_allclose(value, theirs[1][name], rtol=1e-4, atol=1e-6)


_STOCK = {
  'weighted_fed_avg': lambda fn: tff.learning.algorithms.build_weighted_fed_avg(
    fn, sgd(0.1), sgd(1.0)
  ),
  'fed_adam': lambda fn: tff.learning.algorithms.build_unweighted_fed_avg(
    fn, sgd(0.1), tff.learning.optimizers.build_adam(0.01)
  ),
  'fed_prox': lambda fn: tff.learning.algorithms.build_weighted_fed_prox(
    fn, 0.1, sgd(0.1), sgd(1.0)
  ),
  'fed_sgd': lambda fn: tff.learning.algorithms.build_fed_sgd(fn, sgd(0.5)),
  'mime_lite': lambda fn: tff.learning.algorithms.build_weighted_mime_lite(
    fn, sgd(0.1, 0.9)
  ),
  'robust': lambda fn: tff.learning.algorithms.build_weighted_fed_avg(
    fn,
    sgd(0.1),
    sgd(1.0),
    model_aggregator=tff.learning.robust_aggregator(),
  ),
}


@pytest.mark.parametrize(
  'name',
  [
    'weighted_fed_avg',
    pytest.param('fed_adam', marks=pytest.mark.slow),
    pytest.param('fed_prox', marks=pytest.mark.slow),
    pytest.param('fed_sgd', marks=pytest.mark.slow),
    pytest.param('mime_lite', marks=pytest.mark.slow),
    pytest.param('robust', marks=pytest.mark.slow),
  ],
)
def test_stock_process_with_variables_is_equal(name, unequal, model_fn):
  cohorts = _STOCK[name](model_fn)
  _assert_equal_on_both_engines(cohorts, unequal)


def test_secure_sums_are_close_to_plain_ones(unequal, model_fn):
  # TFF's runtime cannot execute them; the fixed-point sums of the secure
  # aggregator differ from plain ones by their quantisation.
  def build(aggregator):
    return tff.learning.algorithms.build_weighted_fed_avg(
      model_fn, sgd(0.1), sgd(1.0), model_aggregator=aggregator
    )

  weights = {}
  start = None
  for name, aggregator in {
    'plain': tff.learning.robust_aggregator(zeroing=False, clipping=False),
    'secure': tff.learning.secure_aggregator(zeroing=False, clipping=False),
  }.items():
    engine = engines.build(
      config.EngineName.IN_PROCESS,
      build(aggregator),
      data=unequal,
      schedule=_SCHEDULE,
      seed=3,
      noise_key=_KEY,
    )
    state = engine.initialize()
    start = start or state.global_model_weights
    state = state._replace(global_model_weights=start)
    done = engine.round(state, round_num=1, clients=np.arange(8))
    weights[name] = done.state.global_model_weights.trainable
  moved = max(
    np.abs(a - b).max()
    for a, b in zip(weights['plain'], start.trainable, strict=True)
  )
  apart = max(
    np.abs(a - b).max() for a, b in zip(*weights.values(), strict=True)
  )
  assert apart < 1e-2 * moved


def _dense_process(task, aggregator):
  from tff_pipeline.algorithms import fed_avg

  model = functional.build(
    functional.keras_model(task.model_factory, seed=0),
    loss=task.loss_factory(),
    metric_factory=task.metric_factory,
    input_spec=task.input_spec,
  )
  return fed_avg.build(
    model,
    client_optimizer=sgd(0.1),
    server_optimizer=sgd(1.0),
    schedule=_SCHEDULE,
    protection=protection.UNPROTECTED,
    aggregator=aggregator,
    weighting=config.Weighting.NUM_EXAMPLES,
  )


@pytest.fixture(scope='module')
def dense(task):
  return _dense_process(task, tff.aggregators.MeanFactory())


def test_dense_process_is_equal(unequal, dense):
  _assert_equal_on_both_engines(dense, unequal)


@pytest.mark.parametrize('lanes', [1, 2, 3])
def test_lanes_do_not_change_the_result(unequal, dense, lanes):
  def run(lanes):
    feed = feeds.for_process(
      dense, unequal, schedule=_SCHEDULE, seed=3, noise_key=_KEY
    )
    engine = in_process.InProcess(dense, feed, lanes=lanes)
    return _rounds(engine, engine.initialize())

  for ours, theirs in zip(run(lanes), run(5), strict=True):
    for one, other in zip(ours[0], theirs[0], strict=True):
      np.testing.assert_allclose(one, other, atol=_TOLERANCE, rtol=0)


def test_state_is_what_the_caller_gives(unequal, dense):
  feed = feeds.for_process(
    dense, unequal, schedule=_SCHEDULE, seed=3, noise_key=_KEY
  )
  engine = in_process.InProcess(dense, feed)
  start = engine.initialize()

  def next_state(state):
    done = engine.round(state, round_num=1, clients=np.arange(4))
    return done.state, [
      w.copy() for w in done.state.global_model_weights.trainable
    ]

  after, weights = next_state(start)
  further, _ = next_state(after)
  with pytest.raises(ValueError, match='read-only'):
    further.global_model_weights.trainable[0][:] = 0
  # Some leaves are the latest ones, and the weights are older.
  mixed = further._replace(global_model_weights=start.global_model_weights)
  for one, other in zip(next_state(mixed)[1], weights, strict=True):
    np.testing.assert_allclose(one, other, atol=_TOLERANCE, rtol=0)


def test_no_retracing_for_other_cohorts(unequal, dense):
  engine = engines.build(
    config.EngineName.IN_PROCESS,
    dense,
    data=unequal,
    schedule=_SCHEDULE,
    seed=3,
    noise_key=_KEY,
  )
  _rounds(engine, engine.initialize())
  assert engine.num_traces == 1


def test_process_of_two_phases_is_refused_naming_the_engine(unequal):
  @tff.federated_computation
  def initialize():
    return tff.federated_value(0.0, tff.SERVER)

  data = tff.FederatedType(
    tff.SequenceType(
      tff.types.tensorflow_to_type(
        collections.OrderedDict(
          x=tf.TensorSpec([None, 64], tf.float32),
          y=tf.TensorSpec([None], tf.int32),
        )
      )
    ),
    tff.CLIENTS,
  )

  @tff.tensorflow.computation
  def add(a, b):
    return a + b

  @tff.federated_computation(tff.FederatedType(np.float32, tff.SERVER), data)
  def two_phases(state, client_data):
    del client_data
    first = tff.federated_sum(tff.federated_broadcast(state))
    second = tff.federated_sum(tff.federated_broadcast(first))
    return tff.learning.templates.LearningProcessOutput(
      tff.federated_map(add, (first, second)), second
    )

  process = collections.namedtuple('Process', ['initialize', 'next'])(
    initialize, two_phases
  )
  with pytest.raises(validate.UsageError, match='--engine=tff_runtime'):
    engines.build(
      config.EngineName.IN_PROCESS,
      process,
      data=unequal,
      schedule=_SCHEDULE,
      seed=3,
      noise_key=_KEY,
    )


def test_worker_ends_with_the_engine(unequal, dense):
  feed = feeds.for_process(
    dense, unequal, schedule=_SCHEDULE, seed=3, noise_key=_KEY
  )
  with tff_runtime.TffRuntime(dense, feed) as engine:
    pid = engine.worker_pid
  assert not psutil.pid_exists(pid)


def test_breaking_the_sum_is_noticed(unequal, dense, monkeypatch):
  # The equality test above can fail: an engine that forgets a client differs.
  original = feeds.Feed.cohort

  def without_the_last(self, *, round_num, clients):
    cohort = original(self, round_num=round_num, clients=clients)
    return cohort._replace(size=tf.maximum(cohort.size - 1, 0))

  feed = feeds.for_process(
    dense, unequal, schedule=_SCHEDULE, seed=3, noise_key=_KEY
  )
  engine = in_process.InProcess(dense, feed)
  good = _rounds(engine, engine.initialize())
  monkeypatch.setattr(feeds.Feed, 'cohort', without_the_last)
  bad = _rounds(engine, engine.initialize())
  assert any(
    np.abs(a - b).max() > 100 * _TOLERANCE
    for a, b in zip(good[0][0], bad[0][0], strict=True)
  )

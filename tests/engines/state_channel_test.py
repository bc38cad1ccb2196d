"""States of clients through a round: equal on both engines, and to NumPy."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import stateful_processes
from tff_pipeline import config
from tff_pipeline import sampling
from tff_pipeline import tasks
from tff_pipeline import validate
from tff_pipeline.aggregation import collecting
from tff_pipeline.client_work import training_loop
from tff_pipeline.engines import client_store
from tff_pipeline.engines import engine as engines
from tff_pipeline.engines import in_process
from tff_pipeline.engines import state_channel
from tff_pipeline.models import functional

_CLIENTS = 12
_SETTINGS = {
  'schedule': stateful_processes.SCHEDULE,
  'seed': 3,
  'noise_key': (5, -6),
}
# Poisson cohorts of 1.5 expected clients: many are empty, many hold one.
_SAMPLER = sampling.build(config.poisson(2), population=_CLIENTS, seed=8)
_ROUNDS = 12
_COHORTS = [_SAMPLER(r).tolist() for r in range(1, _ROUNDS + 1)]
_TOLERANCE = 5e-6  # As in in_process_test.


def test_cohorts_are_of_many_sizes():
  assert {0, 1, 2, 3} <= set(map(len, _COHORTS))
  taken = sum(_COHORTS, [])
  assert 0 < len(set(taken)) < min(len(taken), _CLIENTS)


@pytest.fixture(scope='module')
def task():
  return tasks.build(
    config.Task(
      name='digits', partition='dirichlet', clients=_CLIENTS, concentration=1.0
    ),
    seed=0,
  )


@pytest.fixture(scope='module')
def process(task):
  model = functional.build(
    functional.keras_model(
      lambda: tf.keras.Sequential(
        [
          tf.keras.Input((stateful_processes.FEATURES,)),
          tf.keras.layers.Dense(10),
        ]
      ),
      seed=0,
    ),
    loss=task.loss_factory(),
    metric_factory=task.metric_factory,
    input_spec=task.input_spec,
  )
  return stateful_processes.build(model, schedule=stateful_processes.SCHEDULE)


@pytest.fixture(scope='module')
def engine(process, task):
  return engines.build('in_process', process, data=task.train, **_SETTINGS)


def _run(engine, *, first=1, state=None, store=None, last=_ROUNDS):
  """Returns the weights after each round, and the store."""
  if store is None:
    store = client_store.Store(engine.channel)
  runner = client_store.keeping(engine, store)
  state = engine.initialize() if state is None else state
  weights = []
  for round_num in range(first, last + 1):
    clients = np.array(_COHORTS[round_num - 1], np.int64)
    done = runner.round(state, round_num=round_num, clients=clients)
    state = done.state
    weights.append(
      np.concatenate(
        [np.ravel(w) for w in state.global_model_weights.trainable]
      )
    )
    assert 'client_states' not in done.metrics['client_work']
    assert (
      sorted(done.client_states.clients.tolist()) == _COHORTS[round_num - 1]
    )
  return weights, store


@pytest.fixture(scope='module')
def whole(engine):
  return _run(engine)


def _assert_states(store, other):
  assert store.clients == other.clients
  for client in store.clients:
    for a, b in zip(store.leaves(client), other.leaves(client), strict=True):
      assert a.dtype == b.dtype
      np.testing.assert_allclose(a, b, rtol=1e-6)


def test_states_are_those_of_numpy(whole, task):
  _, store = whole
  expected = stateful_processes.expected_states(task.train, _COHORTS)
  assert store.clients == sorted(expected)
  for client, (total, participations) in expected.items():
    found = store.state(client)
    assert list(found) == ['total', 'participations']
    assert found['participations'] == participations
    np.testing.assert_allclose(found['total'], total, rtol=1e-5)


def test_engines_are_equal(process, task, whole):
  with engines.build(
    'tff_runtime', process, data=task.train, **_SETTINGS
  ) as engine:
    weights, store = _run(engine)
  _assert_states(store, whole[1])
  for ours, theirs in zip(whole[0], weights, strict=True):
    np.testing.assert_allclose(ours, theirs, atol=_TOLERANCE, rtol=0)


def test_no_retracing(engine, whole):
  assert engine.num_traces == 1


@pytest.mark.parametrize('lanes', [1, 3])
def test_lanes_do_not_change_states(process, engine, whole, lanes):
  weights, store = _run(
    in_process.InProcess(process, engine._feed, lanes=lanes)
  )
  _assert_states(store, whole[1])
  np.testing.assert_allclose(weights[-1], whole[0][-1], atol=_TOLERANCE, rtol=0)


def test_states_shape_the_model(engine, whole):
  # So that equal weights mean equal states: forgetful clients differ.
  state = engine.initialize()
  for round_num, clients in enumerate(_COHORTS, start=1):
    state = engine.round(
      state, round_num=round_num, clients=np.array(clients, np.int64)
    ).state
  kernel = np.ravel(state.global_model_weights.trainable[0])
  assert np.abs(kernel - whole[0][-1][: len(kernel)]).max() > 1e-3


def test_given_initial_state_is_where_clients_start(engine, task):
  initial = collections.OrderedDict(
    total=np.full(stateful_processes.FEATURES, 7, np.float32),
    participations=np.int32(100),
  )
  store = client_store.Store(engine.channel, initial=initial)
  _, store = _run(engine, store=store)
  expected = stateful_processes.expected_states(task.train, _COHORTS)
  for client, (_, participations) in expected.items():
    assert store.state(client)['participations'] == 100 + participations
  stranger = min(set(range(_CLIENTS)) - set(store.clients))
  tf.nest.map_structure(
    np.testing.assert_array_equal, store.state(stranger), initial
  )


@pytest.mark.parametrize(
  'change',
  [
    lambda rows: rows[:1],
    lambda rows: tuple(leaf[:-1] for leaf in rows),
    lambda rows: (rows[0].astype(np.float64), rows[1]),
    lambda rows: (rows[0][:, :-1], rows[1]),
  ],
  ids=['fewer_leaves', 'fewer_clients', 'other_type', 'other_shape'],
)
def test_rows_that_are_no_states_are_refused(engine, change):
  rows = change(engine.channel.zeros(2))
  with pytest.raises(ValueError, match='Expected client states'):
    engine.round(
      engine.initialize(), round_num=1, clients=np.arange(2), states=rows
    )


def test_in_process_engine_gathers_rows_without_appending(process, engine):
  # Appending copies all rows for each client; see `Graph.appends`.
  from tff_pipeline.engines import graphs

  form = in_process._map_reduce_form(process)
  assert len(graphs.Graph(form.accumulate).appends) == 3
  assert graphs.Graph(form.work).takes_elements
  assert graphs.Graph(form.merge).appends == {}


def _process(element, metrics_fn):
  """Returns a process without a model, with these metrics of the clients."""

  @tff.federated_computation
  def initialize():
    return tff.federated_value(0.0, tff.SERVER)

  data = tff.SequenceType(
    tff.types.tensorflow_to_type(collections.OrderedDict(element))
  )

  @tff.tensorflow.computation(data)
  def take(dataset):
    return dataset.get_single_element()

  @tff.federated_computation(
    initialize.type_signature.result, tff.FederatedType(data, tff.CLIENTS)
  )
  def next_fn(state, clients):
    metrics = metrics_fn(tff.federated_map(take, clients))
    return tff.learning.templates.LearningProcessOutput(state, metrics)

  return collections.namedtuple('Process', ['initialize', 'next'])(
    initialize, next_fn
  )


_X = ('x', tf.TensorSpec([None], tf.float32))
_INDEX = (training_loop.INDEX, training_loop.INDEX_SPEC)
_STATE = (training_loop.STATE, tf.TensorSpec([2], tf.float32))


@tff.tensorflow.computation
def _three():
  return 3


def _collected(*names):
  def metrics(element):
    part = collections.OrderedDict(
      (name, getattr(element, name)) for name in names
    )
    return tff.federated_zip(
      collections.OrderedDict(
        a=tff.federated_eval(_three, tff.SERVER),
        inner=collections.OrderedDict(
          client_states=collecting.collect(tff.federated_zip(part)),
          b=tff.federated_eval(_three, tff.SERVER),
        ),
      )
    )

  return metrics


def test_channel_is_found_at_any_depth_and_leaves_the_other_metrics():
  channel = state_channel.find(
    _process([_X, _INDEX, _STATE], _collected('client_index', 'client_state'))
  )
  assert channel.path == ('inner', 'client_states')
  assert channel.specs == (tf.TensorSpec([2], tf.float32),)
  inner = collections.namedtuple('Inner', ['client_states', 'b'])
  metrics, rows = state_channel.split(
    channel,
    {
      'a': 1,
      'inner': inner(
        {'client_index': np.array([4]), 'client_state': np.ones([1, 2])}, 2
      ),
    },
  )
  assert metrics == {'a': 1, 'inner': {'b': 2}}
  assert rows.clients == [4]
  np.testing.assert_array_equal(rows.leaves, np.ones([1, 1, 2]))


@pytest.mark.parametrize(
  ('element', 'names'),
  [
    ([_X, _INDEX], ('client_index',)),
    ([_X, _INDEX, _STATE], ('client_index',)),
    ([_X, _INDEX, _STATE], ('client_state', 'client_index')),
    ([_X, _INDEX, _STATE], ('client_state', 'client_state')),
  ],
  ids=['no_state_in', 'no_state_out', 'wrong_order', 'no_index'],
)
def test_state_that_does_not_come_back_is_refused(element, names):
  with pytest.raises(validate.UsageError, match='client_state'):
    state_channel.find(_process(element, _collected(*names)))


def test_state_that_is_not_collected_is_refused():
  process = _process(
    [_X, _INDEX, _STATE],
    lambda element: tff.federated_eval(_three, tff.SERVER),
  )
  with pytest.raises(validate.UsageError, match='found one client_state, 0'):
    state_channel.find(process)


def test_text_is_no_state():
  process = _process(
    [_X, _INDEX, (training_loop.STATE, tf.TensorSpec([], tf.string))],
    _collected('client_index', 'client_state'),
  )
  with pytest.raises(validate.UsageError, match='numbers'):
    state_channel.find(process)


def test_process_without_state_has_no_channel():
  process = _process(
    [_X], lambda element: tff.federated_eval(_three, tff.SERVER)
  )
  assert state_channel.find(process) is None
  assert client_store.for_channel(None) is None
  engine = object()
  assert client_store.keeping(engine, None) is engine
  metrics = object()
  assert state_channel.split(None, metrics) == (metrics, None)

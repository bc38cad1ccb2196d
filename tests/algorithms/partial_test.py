"""Algorithms with local layers: NumPy references, and what leaves a client."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import small_models
from tests.algorithms import cohorts
from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.algorithms import partial
from tff_pipeline.client_work import protection as protections
from tff_pipeline.privacy import mechanisms
from tff_pipeline.privacy import statement as statements

sgd = tff.learning.optimizers.build_sgdm
_LR = cohorts.CLIENT.learning_rate
_COHORTS = ([0, 2, 3], [2, 5], [0, 1, 2, 5])
_LOCAL = 2  # Weights of the last layer: kernel and bias.
_REP = {'local_layers': '1', 'local_steps': 3}


def _algorithm(name, **leaves):
  return config.Algorithm(name=name, **leaves)


def _start():
  return small_models.build(small_models.dense).initial_weights[0]


def _head():
  return tuple(_start()[-_LOCAL:])


def _initial():
  return {partial.LOCAL: _head()}


def _heads(store):
  """Returns what each client has at the end; `None` without a store."""
  if store is None:
    return None
  return {c: store.state(c)[partial.LOCAL] for c in store.clients}


def _run(algorithm, **arguments):
  return _run_and_keep(algorithm, **arguments)[0]


def _run_and_keep(algorithm, **arguments):
  """Returns the rounds, and the clients' heads."""
  build = {
    name: arguments.pop(name)
    for name in ('client', 'protection')
    if name in arguments
  }
  process = cohorts.build(algorithm, **build)
  arguments.setdefault('cohorts', _COHORTS)
  rounds, _, store = cohorts.run_and_keep(
    process,
    client=build.get('client', cohorts.CLIENT),
    initial_client_state=_initial(),
    **arguments,
  )
  return rounds, _heads(store)


def _gradient(weights, x, y):
  """The gradient of dense -> ReLU -> dense by hand, in float64."""
  kernel_1, bias_1, kernel_2, bias_2 = weights
  inner = x @ kernel_1 + bias_1
  hidden = np.maximum(inner, 0.0)
  outer, _ = cohorts.numpy_gradient((kernel_2, bias_2), hidden, y)
  logits = hidden @ kernel_2 + bias_2
  shares = np.exp(logits - logits.max(axis=1, keepdims=True))
  shares /= shares.sum(axis=1, keepdims=True)
  shares[np.arange(len(y)), y] -= 1.0
  back = (shares / len(y)) @ kernel_2.T * (inner > 0)
  return [x.T @ back, back.sum(axis=0), *outer]


def _steps(weights, x, y, *, moved, rate=_LR, steps=None):
  """Local SGD in row order that moves some of the weights only."""
  weights = [np.array(w, np.float64) for w in weights]
  size, number = cohorts.CLIENT.batch_size, 0
  for _ in range(cohorts.CLIENT.epochs if steps is None else steps):
    for first in range(0, len(y), size):
      if number == steps:
        return weights
      rows = slice(first, first + size)
      gradient = _gradient(weights, x[rows], y[rows])
      for index in moved:
        weights[index] = weights[index] - rate * gradient[index]
      number += 1
  return weights


_BODY, _HEAD = range(2), range(2, 4)


def _fed_per(weights, x, y):
  return _steps(weights, x, y, moved=range(4))


def _fed_rep(weights, x, y):
  weights = _steps(weights, x, y, moved=_HEAD, steps=3)
  return _steps(weights, x, y, moved=_BODY)


def _fed_recon(weights, x, y):
  weights = [*weights[:2], *_head()]
  weights = _steps(weights, x[::2], y[::2], moved=_HEAD, steps=3, rate=3 * _LR)
  return _steps(weights, x[1::2], y[1::2], moved=_BODY)


@pytest.mark.parametrize(
  'algorithm, work',
  [
    (_algorithm('fed_per', local_layers='1'), _fed_per),
    (_algorithm('fed_rep', **_REP), _fed_rep),
    (
      _algorithm(
        'fed_recon',
        local_learning_rate=3 * _LR,
        weighting='num_examples',
        **_REP,
      ),
      _fed_recon,
    ),
  ],
  ids=['fed_per', 'fed_rep', 'fed_recon'],
)
def test_equals_the_papers_update(algorithm, work):
  ours, kept = _run_and_keep(algorithm)
  body = [np.array(w, np.float64) for w in _start()[:2]]
  heads = collections.defaultdict(_head)
  for cohort, (found, _) in zip(_COHORTS, ours, strict=True):
    trained, shares = [], []
    for client, (x, y) in zip(
      cohort, cohorts.numpy_clients(cohorts.data(), cohort), strict=True
    ):
      weights = work([*body, *heads[client]], x, y)
      trained.append(weights[:2])
      heads[client] = weights[2:]
      weighted = algorithm.weighting is config.Weighting.NUM_EXAMPLES
      shares.append(len(y) // 2 if weighted else 1)  # Those of the query half.
    body = [
      np.average([t[i] for t in trained], axis=0, weights=shares) for i in _BODY
    ]
    for one, expected in zip(found, body, strict=True):
      np.testing.assert_allclose(one, expected, atol=3e-6, rtol=0)
  assert (kept is None) == (algorithm.name not in config.REMEMBERED_LAYERS)
  if kept is not None:
    assert sorted(kept) == [0, 1, 2, 3, 5]
    for client, state in kept.items():
      for one, expected in zip(state, heads[client], strict=True):
        np.testing.assert_allclose(one, expected, atol=3e-6, rtol=0)


@pytest.mark.parametrize('name', ['fed_per', 'fed_rep'])
def test_without_local_layers_it_is_fed_avg(name):
  leaves = {'local_steps': 3} if name == 'fed_rep' else {}
  found = _run(_algorithm(name, local_layers='0', **leaves))
  cohorts.assert_equal(found, _run(config.Algorithm()), tolerance=0.0)


def test_reconstruction_without_local_layers_is_fed_avg_on_the_query_half():
  algorithm = _algorithm('fed_recon', local_layers='0', local_steps=3)
  data = cohorts.data()
  rows = [
    np.arange(first, last)[1::2]
    for first, last in zip(data.offsets[:-1], data.offsets[1:], strict=True)
  ]
  half = cohorts.client_data.from_assignment(data.examples, rows)
  expected = _run(config.Algorithm(), clients=half)
  cohorts.assert_equal(_run(algorithm), expected, tolerance=0.0)


def test_representation_without_steps_keeps_the_initial_head():
  _, kept = _run_and_keep(
    _algorithm('fed_rep', local_layers='1', local_steps=0)
  )
  assert sorted(kept) == [0, 1, 2, 3, 5]
  for state in kept.values():
    for one, initial in zip(state, _head(), strict=True):
      np.testing.assert_array_equal(one, initial)


def test_client_whose_training_explodes_keeps_its_head_and_sends_nothing():
  [(found, metrics)], kept = _run_and_keep(
    _algorithm('fed_per', local_layers='1'),
    cohorts=[[2]],
    clients=cohorts.data(scale=1e30),
  )
  assert metrics['client_work']['train']['rejected_updates'] == 1
  for one, initial in zip(kept[2], _head(), strict=True):
    np.testing.assert_array_equal(one, initial)
  for one, initial in zip(found, _start()[:2], strict=True):
    np.testing.assert_array_equal(one, initial)


_BODY_SIZE = 6 * 5 + 5
_CLIP, _NOISE = 0.05, 2.0


def _experiment(algorithm, *, noise_multiplier=_NOISE, **changes):
  return config.Experiment(
    **{
      'task': config.Task(name='digits', partition='iid', clients=6),
      'cohort': config.poisson(3),
      'client': cohorts.CLIENT,
      'server': cohorts.SERVER,
      'algorithm': algorithm,
      'privacy': config.gaussian(
        noise_multiplier=noise_multiplier,
        clip_norm=_CLIP,
        delta=1e-3,
        population=6,
      ),
      'rounds': 3,
    }
    | changes
  )


def _run_privately(algorithm, *, noise_multiplier, cohort):
  mechanism = mechanisms.build(
    config.terms(_experiment(algorithm, noise_multiplier=noise_multiplier)),
    population=6,
    noise_key=cohorts.KEY,
  )
  process = cohorts.build(
    algorithm,
    aggregator=mechanism.aggregator,
    protection=mechanism.protection,
  )
  [(found, metrics)], _, store = cohorts.run_and_keep(
    process, cohorts=[cohort], initial_client_state=_initial()
  )
  return process, found, metrics, _heads(store)


@pytest.mark.parametrize('name', config.REMEMBERED_LAYERS)
def test_only_the_body_is_clipped_noised_and_released(name):
  leaves = _REP if name == 'fed_rep' else {'local_layers': '1'}
  algorithm = _algorithm(name, **leaves)
  process, noised, metrics, kept = _run_privately(
    algorithm, noise_multiplier=_NOISE, cohort=[0, 2, 3]
  )
  # By type: what the server has, and what the aggregator may add up.
  state = process.initialize.type_signature.result.member
  shapes = [
    [tuple(t.shape) for t in part] for part in state.global_model_weights
  ]
  assert shapes == [[(6, 5), (5,)], [(5, 4), (4,)]]
  assert [w.shape for w in noised] == shapes[0]
  # The noise has the dimensions of the body.
  np.testing.assert_allclose(
    metrics['aggregator']['noise_norm'],
    _NOISE * _CLIP * _BODY_SIZE**0.5 / 3,
    rtol=1e-5,
  )
  # The first round starts from one model: noise can be in the body only.
  _, exact, _, own = _run_privately(
    algorithm, noise_multiplier=0.0, cohort=[0, 2, 3]
  )
  assert np.abs(noised[0] - exact[0]).max() > 1e-3
  assert sorted(kept) == sorted(own) == [0, 2, 3]
  for client, state in kept.items():
    for one, other in zip(state, own[client], strict=True):
      np.testing.assert_array_equal(one, other)


def test_the_body_alone_has_the_clip_norm():
  _, found, _, _ = _run_privately(
    _algorithm('fed_per', local_layers='1'), noise_multiplier=0.0, cohort=[2]
  )
  moved = np.concatenate(
    [np.ravel(a - b) for a, b in zip(found, _start()[:2], strict=True)]
  )
  np.testing.assert_allclose(np.linalg.norm(moved), _CLIP / 3, rtol=1e-4)


def test_epsilon_is_that_of_fed_avg_and_the_statement_names_the_head():
  found = {
    name: statements.build(
      config.terms(_experiment(_algorithm(name, **leaves))), released=3
    )
    for name, leaves in {
      'fed_avg': {},
      'fed_per': {'local_layers': '1'},
      'fed_rep': _REP,
      'fed_recon': _REP,
    }.items()
  }
  plain = found.pop('fed_avg')
  assert 0 < plain['epsilon'] < 10
  for statement in found.values():
    assert statement['epsilon'] == plain['epsilon']
    assert statement['releases'] == plain['releases']
    [extra] = set(statement['not_covered']) - set(plain['not_covered'])
    assert 'layers that stay on the clients' in extra


@pytest.mark.parametrize('name', config.REMEMBERED_LAYERS)
def test_amplification_by_fixed_cohorts_is_refused_for_clients_that_remember(
  name,
):
  leaves = _REP if name == 'fed_rep' else {'local_layers': '1'}
  with pytest.raises(validate.UsageError, match='^--cohort.sampling: .*remem'):
    _experiment(_algorithm(name, **leaves), cohort=config.fixed_size(3))
  _experiment(_algorithm('fed_recon', **_REP), cohort=config.fixed_size(3))


def test_local_layers_alone_are_states_that_go_with_privacy():
  excepted = {
    name: set(row.state_mechanisms)
    for name, row in config.ALGORITHMS.items()
    if row.state_mechanisms != (config.Mechanism.NONE,)
  }
  every = set(config.Mechanism)
  assert excepted == {
    'fed_per': every,
    'fed_rep': every - {config.Mechanism.DP_SGD},
  }
  assert set(excepted) == set(config.REMEMBERED_LAYERS)


@pytest.mark.parametrize('name', ['fed_rep', 'fed_recon'])
def test_example_noise_beneath_unpriced_steps_is_refused(name):
  privacy = config.gaussian(
    noise_multiplier=1.0,
    clip_norm=1.0,
    delta=1e-3,
    population=6,
    example_noise_multiplier=1.0,
    example_clip_norm=1.0,
  )
  with pytest.raises(validate.UsageError, match='^--privacy.example_clip_norm'):
    _experiment(_algorithm(name, **_REP), privacy=privacy)


def test_example_noise_covers_the_head_too():
  privacy = config.Privacy(
    mechanism='dp_sgd',
    noise_multiplier=_NOISE,
    clip_norm=_CLIP,
    delta=1e-3,
    population=6,
  )
  algorithm = _algorithm('fed_per', local_layers='1')
  heads = []
  for protection in (protections.UNPROTECTED, mechanisms.protection(privacy)):
    _, kept = _run_and_keep(algorithm, protection=protection, cohorts=[[2]])
    heads.append(kept[2])
  assert np.abs(heads[0][1] - heads[1][1]).max() > 1e-3
  statement = statements.build(
    config.terms(_experiment(algorithm, privacy=privacy)), released=3
  )
  assert not any('layers' in text for text in statement['not_covered'])


def stock_recon(*, steps, learning_rate):
  """TFF's own builder, with every second example for the local layer.

  It has to be fed one epoch: rows of a second one would change sides.
  """

  def halves(dataset):
    rows = dataset.unbatch().enumerate()

    def half(odd):
      chosen = rows.filter(lambda i, _: tf.equal(i % 2, odd))
      return chosen.map(lambda _, row: row).batch(cohorts.CLIENT.batch_size)

    return half(0).repeat(steps).take(steps), half(1)

  def layer(first):
    kernel, bias = _start()[first : first + 2]
    return tf.keras.layers.Dense(
      len(bias),
      activation='relu' if first == 0 else None,
      kernel_initializer=tf.constant_initializer(kernel),
      bias_initializer=tf.constant_initializer(bias),
    )

  def model_fn():
    model = tf.keras.Sequential([tf.keras.Input((6,)), layer(0), layer(2)])
    return tff.learning.models.ReconstructionModel.from_keras_model_and_layers(
      model,
      global_layers=model.layers[:1],
      local_layers=model.layers[1:],
      input_spec=small_models.build(small_models.dense).input_spec,
    )

  return tff.learning.algorithms.build_fed_recon(
    model_fn,
    loss_fn=small_models.loss,
    metrics_fn=lambda: [tf.keras.metrics.SparseCategoricalAccuracy('accuracy')],
    server_optimizer_fn=sgd(1.0),
    client_optimizer_fn=sgd(_LR),
    reconstruction_optimizer_fn=sgd(learning_rate),
    dataset_split_fn=halves,
    client_weighting=tff.learning.ClientWeighting.UNIFORM,
  )

"""Error feedback against NumPy: what is sent, what is kept, what is refused."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests import small_models
from tests.algorithms import cohorts
from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.client_work import compression
from tff_pipeline.client_work import model_delta
from tff_pipeline.client_work import protection
from tff_pipeline.client_work import train_metrics
from tff_pipeline.client_work import training_loop

_COHORTS = ([0, 2, 3], [1, 2], [], [2, 0, 4], [0, 1, 2])


def _leaves(name, **leaves):
  return config.Compression(name=name, error_feedback='on', **leaves)


TOP_K = _leaves('top_k', kept_share=0.2)
QUANTIZED = _leaves('quantization', bits=2, rounding='nearest')


def _numpy_top_k(update):
  flat = np.concatenate([u.ravel() for u in update])
  count = max(1, round(0.2 * flat.size))
  flat[np.argsort(-np.abs(flat))[count:]] = 0.0
  cuts = np.cumsum([u.size for u in update])[:-1]
  parts = np.split(flat, cuts)
  return [p.reshape(u.shape) for p, u in zip(parts, update, strict=True)]


def _numpy_two_bits(update):
  coded = []
  for u in update:
    levels = np.linspace(u.min(), u.max(), 4)
    coded.append(levels[np.abs(u[..., None] - levels).argmin(-1)])
  return coded


def _reference(code):
  """FedAvg of what is decoded; returns weights by round and residuals."""
  weights = [
    np.array(w, np.float64)
    for w in small_models.build(cohorts.linear).initial_weights[0]
  ]
  found, residuals = [], {}
  for cohort in _COHORTS:
    sent = []
    data = cohorts.numpy_clients(cohorts.data(), cohort)
    for index, (x, y) in zip(cohort, data, strict=True):
      trained = cohorts.numpy_steps(weights, x, y, client=cohorts.CLIENT)
      residual = residuals.get(index, [np.zeros_like(w) for w in weights])
      whole = [
        w - t + e for w, t, e in zip(weights, trained, residual, strict=True)
      ]
      sent.append(code([w.copy() for w in whole]))
      residuals[index] = [w - s for w, s in zip(whole, sent[-1], strict=True)]
    if cohort:
      weights = [
        w - np.mean(s, axis=0) for w, *s in zip(weights, *sent, strict=True)
      ]
    found.append(weights)
  return found, residuals


@pytest.mark.parametrize(
  'leaves, code',
  [
    pytest.param(TOP_K, _numpy_top_k, id='top_k'),
    pytest.param(
      QUANTIZED, _numpy_two_bits, id='quantization', marks=pytest.mark.slow
    ),
  ],
)
def test_equals_numpy(leaves, code):
  process = cohorts.build(
    config.Algorithm(), factory=cohorts.linear, compression=leaves
  )
  rounds, _, store = cohorts.run_and_keep(process, cohorts=_COHORTS)
  expected, residuals = _reference(code)
  for (found, _), wanted in zip(rounds, expected, strict=True):
    for one, other in zip(found, wanted, strict=True):
      np.testing.assert_allclose(one, other, atol=5e-6)
  assert store.clients == sorted(residuals)
  for index, wanted in residuals.items():
    kept = store.state(index)[compression.RESIDUAL]
    for one, other in zip(kept, wanted, strict=True):
      np.testing.assert_allclose(one, other, atol=5e-6)
  assert max(np.abs(e[0]).max() for e in residuals.values()) > 1e-3


def test_full_precision_leaves_no_residual():
  whole = _leaves('top_k', kept_share=1.0)
  ours, _, store = cohorts.run_and_keep(
    cohorts.build(config.Algorithm(), compression=whole)
  )
  cohorts.assert_equal(
    ours, cohorts.run(cohorts.build(config.Algorithm())), tolerance=1e-6
  )
  assert store.clients
  for index in store.clients:
    for part in store.state(index)[compression.RESIDUAL]:
      assert np.all(part == 0)


def _sent_in_turn(leaves, rounds=60):
  """Returns updates, what was sent, and the residuals of one client."""
  released = compression.release(leaves, protection.UNCHANGED)
  assert released.keeps == (compression.RESIDUAL,)
  rng = np.random.default_rng(4)

  @tf.function
  def step(update, residual, number):
    element = {
      training_loop.KEY: tf.stack([tf.constant(9, tf.int64), number]),
      training_loop.STATE: {compression.RESIDUAL: (residual,)},
    }
    (sent,), _, kept = released.call((update,), element)
    return sent, kept[compression.RESIDUAL][0]

  residual, found = tf.zeros(40), []
  for number in range(rounds):
    update = rng.normal(size=40).astype(np.float32)
    sent, residual = step(update, residual, tf.constant(number, tf.int64))
    found.append((update, sent.numpy(), residual.numpy()))
  return map(np.stack, zip(*found, strict=True))


@pytest.mark.parametrize(
  'leaves',
  [
    TOP_K,
    _leaves('random_k', kept_share=0.2),
    QUANTIZED,
    _leaves('quantization', bits=2, rounding='stochastic'),
  ],
  ids=['top_k', 'random_k', 'nearest', 'stochastic'],
)
def test_nothing_is_lost_and_the_residual_stays_bounded(leaves):
  """sum of updates = sum of what was sent + the residual, in every round."""
  updates, sent, residuals = _sent_in_turn(leaves)
  np.testing.assert_allclose(
    np.cumsum(updates, 0), np.cumsum(sent, 0) + residuals, atol=2e-4
  )
  lengths = np.linalg.norm(residuals, axis=1)
  assert lengths[30:].max() < 2 * lengths[10:30].max()
  # The bound 2 sqrt(1 - share)/share |u| of top_k and random_k, in mean.
  assert lengths.mean() < 9 * np.linalg.norm(updates, axis=1).mean()


def test_random_k_is_not_scaled_up_with_feedback():
  updates, sent, residuals = _sent_in_turn(_leaves('random_k', kept_share=0.2))
  np.testing.assert_allclose(sent[0][sent[0] != 0], updates[0][sent[0] != 0])
  assert np.count_nonzero(sent[0]) == 8
  assert np.count_nonzero(residuals[0]) == 32


def test_rejected_update_leaves_the_residual():
  """The client sends it, but with weight zero: it stays owed."""
  model = small_models.build(cohorts.linear)
  residual = (tf.range(10.0),)

  @tf.function
  def finish(update):
    return model_delta.finish(
      model,
      (update,),
      tf.constant(1.0),
      release=compression.release(TOP_K, protection.UNCHANGED),
      metrics=train_metrics.zero(model),
      element={
        training_loop.KEY: tf.constant([1, 2], tf.int64),
        training_loop.STATE: {compression.RESIDUAL: residual},
      },
    )

  result, _, kept = finish(tf.zeros(10) * np.nan)
  assert result.update_weight == 0
  np.testing.assert_array_equal(kept[compression.RESIDUAL], residual)
  result, _, kept = finish(tf.zeros(10))
  assert result.update_weight == 1
  # The two largest of ten are sent.
  np.testing.assert_array_equal(result.update[0], [0] * 8 + [8, 9])
  np.testing.assert_array_equal(
    kept[compression.RESIDUAL][0], [*range(8), 0, 0]
  )


@pytest.mark.parametrize(
  'algorithm',
  [
    pytest.param(
      config.Algorithm(name='fed_sgd'), marks=pytest.mark.slow, id='fed_sgd'
    ),
    pytest.param(
      config.Algorithm(
        name='fed_prox', proximal_strength=0.3, weighting='num_examples'
      ),
      id='fed_prox',
    ),
  ],
)
def test_engines_agree(algorithm):
  client = cohorts.CLIENT
  if algorithm.name is config.AlgorithmName.FED_SGD:
    client = config.Client(batch_size=5, shuffle='off')
  process = cohorts.build(
    algorithm, client=client, compression=_leaves('random_k', kept_share=0.3)
  )
  ours = cohorts.run(process, client=client)
  cohorts.assert_moved(ours)
  theirs = cohorts.run(
    process, client=client, engine=config.EngineName.TFF_RUNTIME
  )
  cohorts.assert_equal(ours, theirs)


def _experiment(**changes):
  return config.Experiment(
    **{
      'task': config.Task(name='digits', partition='iid', clients=100),
      'cohort': config.poisson(10),
      'client': cohorts.CLIENT,
      'server': cohorts.SERVER,
      'privacy': config.no_privacy(),
      'compression': TOP_K,
      'rounds': 3,
    }
    | changes
  )


_PRIVATE = {
  'noise_multiplier': 1.0,
  'clip_norm': 1.0,
  'delta': 1e-4,
  'population': 100,
}
_ADAPTIVE = {
  'target_quantile': 0.5,
  'clip_learning_rate': 0.2,
  'clipped_count_stddev': 5.0,
}


@pytest.mark.parametrize(
  'mechanism', [m for m in config.Mechanism if m is not config.Mechanism.NONE]
)
def test_every_mechanism_is_refused(mechanism):
  more = _ADAPTIVE if mechanism == 'gaussian_adaptive' else {}
  privacy = config.Privacy(mechanism=mechanism, **_PRIVATE, **more)
  with pytest.raises(validate.UsageError) as refused:
    _experiment(privacy=privacy)
  assert str(refused.value).startswith('--privacy.mechanism: expected none')
  off = dataclasses.replace(TOP_K, error_feedback='off')
  if mechanism is not config.Mechanism.LOCAL:
    assert _experiment(privacy=privacy, compression=off)


@pytest.mark.parametrize(
  'changes, flag',
  [
    ({'algorithm': config.Algorithm(name='mime_lite')}, 'algorithm.name'),
    ({'algorithm': config.Algorithm(name='scaffold')}, 'algorithm.name'),
    (
      {'algorithm': config.Algorithm(name='q_fed_avg', fairness=1.0)},
      'algorithm.name',
    ),
    (
      {'algorithm': config.Algorithm(aggregator='median')},
      'algorithm.aggregator',
    ),
    (
      {'compression': dataclasses.replace(QUANTIZED, bits=1)},
      'compression.bits',
    ),
    (
      {'compression': dataclasses.replace(QUANTIZED, rotation='hadamard')},
      'compression.rotation',
    ),
  ],
)
def test_what_does_not_go_together_is_refused(changes, flag):
  with pytest.raises(validate.UsageError, match=f'^--{flag}: expected '):
    _experiment(**changes)


def test_without_an_encoding_there_is_nothing_to_feed_back():
  with pytest.raises(validate.UsageError, match='compression.error_feedback'):
    config.Compression(error_feedback='on')

"""Centralized DP-SGD: our step against TensorFlow Privacy's, and NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from tff_pipeline import config
from tff_pipeline import tasks
from tff_pipeline import validate
from tff_pipeline.algorithms import centralized
from tff_pipeline.algorithms import tfp_steps
from tff_pipeline.data import client_data
from tff_pipeline.models import functional
from tff_pipeline.models import objectives

_STEPS = 4
_BATCH = 25


@pytest.fixture(scope='module')
def task():
  return tasks.build(
    config.Task(
      name='digits', model='softmax_regression', partition='iid', clients=10
    ),
    seed=0,
  )


@pytest.fixture(scope='module')
def model(task):
  return functional.build(
    functional.keras_model(task.model_factory, seed=0),
    loss=task.loss_factory(),
    metric_factory=task.metric_factory,
    input_spec=task.input_spec,
  )


def _privacy(noise_multiplier, clip_norm):
  return config.Privacy(
    mechanism='dp_sgd',
    noise_multiplier=noise_multiplier,
    clip_norm=clip_norm,
    delta=1e-4,
    population=1437,
  )


def _engine(task, model, privacy, *, batches, noise_key=(1, 2), **client):
  return centralized.build(
    model,
    keras_factory=task.model_factory,
    loss_factory=task.loss_factory,
    examples=task.train.examples,
    client=config.Client(
      batch_size=_BATCH, learning_rate=0.5, **{'optimizer': 'sgd'} | client
    ),
    privacy=privacy,
    batches=config.Batches(batches),
    steps_per_round=_STEPS,
    seed=0,
    noise_key=noise_key,
  )


def _run(engine, rounds=2, state=None, first=1):
  state = state or engine.initialize()
  everybody = np.arange(10)
  for number in range(first, first + rounds):
    state, metrics = engine.round(state, round_num=number, clients=everybody)
  return state, metrics['train']


def _assert_close(one, other, atol=2e-6):
  for a, b in zip(
    one.global_model_weights.trainable,
    other.global_model_weights.trainable,
    strict=True,
  ):
    np.testing.assert_allclose(a, b, atol=atol)


def test_plain_steps_equal_numpy(task, model):
  """In two rounds, the second at half the learning rate."""
  engine = _engine(
    task,
    model,
    config.no_privacy(),
    batches='fixed_size',
    decay='linear',
    decay_rounds=1,
    decay_factor=0.5,
  )
  w, b = (np.array(v, np.float64) for v in model.initial_weights[0])
  x, y = task.train.examples.x, task.train.examples.y
  for step in range(1, 2 * _STEPS + 1):
    rate = 0.5 if step <= _STEPS else 0.25
    rows = engine._sample_batch(step)
    logits = x[rows] @ w + b
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(rows)), y[rows]] -= 1
    w -= rate * x[rows].T @ p / len(rows)
    b -= rate * p.mean(0)
  state, metrics = _run(engine, rounds=2)
  for ours, theirs in zip(
    state.global_model_weights.trainable, (w, b), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
  assert metrics['num_examples'] == _STEPS * _BATCH


@pytest.mark.parametrize(
  'client',
  [
    {'optimizer': 'sgd', 'momentum': 0.9},
    {'optimizer': 'sgd'},
    {'optimizer': 'sgd', 'warmup_rounds': 2},
  ],
  ids=['momentum', 'sgd', 'warm-up'],
)
def test_our_clipping_equals_tensorflow_privacy(
  task, model, client, monkeypatch
):
  # A clip norm below most gradients' norms, so that clipping matters.
  privacy = _privacy(0.0, 0.4)
  theirs, _ = _run(
    _engine(task, model, privacy, batches='fixed_size', **client)
  )
  monkeypatch.setattr(centralized, 'has_keyed_noise', lambda *_: True)
  ours, metrics = _run(
    _engine(task, model, privacy, batches='fixed_size', **client)
  )
  _assert_close(ours, theirs)
  assert metrics['clipped_examples'] > _BATCH


def test_poisson_batches_vary_and_divide_by_the_nominal_size(task, model):
  engine = _engine(task, model, config.no_privacy(), batches='poisson')
  sizes = {len(engine._sample_batch(step)) for step in range(1, 30)}
  assert len(sizes) > 5
  plain, _ = _run(engine, rounds=1)
  unclipped, _ = _run(
    _engine(task, model, _privacy(0.0, 1e9), batches='poisson'), rounds=1
  )
  _assert_close(plain, unclipped)


def test_an_empty_batch_is_noise_alone(task, model):
  engine = _engine(task, model, _privacy(1.0, 1.0), batches='poisson')
  engine._sample_batch = lambda step: np.zeros(0, np.int64)
  state, metrics = _run(engine, rounds=1)
  for now, before in zip(
    state.global_model_weights.trainable, model.initial_weights[0], strict=True
  ):
    assert np.all(np.isfinite(now))
    assert not np.array_equal(now, before)
  assert metrics['loss'] == 0.0


def test_noise_has_the_stated_deviation(task, model):
  # Steps on empty batches move the weights by learning rate times noise.
  noise_multiplier, clip_norm = 3.0, 0.5
  engine = _engine(
    task, model, _privacy(noise_multiplier, clip_norm), batches='poisson'
  )
  engine._sample_batch = lambda step: np.zeros(0, np.int64)
  rounds = 10
  state, _ = _run(engine, rounds=rounds)
  moved = np.concatenate(
    [
      np.ravel(now - before)
      for now, before in zip(
        state.global_model_weights.trainable,
        model.initial_weights[0],
        strict=True,
      )
    ]
  )
  stddev = 0.5 * noise_multiplier * clip_norm / _BATCH
  stddev *= np.sqrt(rounds * _STEPS)
  # 650 entries: the relative error of a deviation is 1/sqrt(1300); 5 sigma.
  assert abs(moved.std() / stddev - 1) < 5 / np.sqrt(2 * len(moved))


def test_replayed_round_releases_the_same_values(task, model):
  privacy = _privacy(1.0, 1.0)
  first, _ = _run(_engine(task, model, privacy, batches='poisson'))
  again, _ = _run(_engine(task, model, privacy, batches='poisson'))
  other, _ = _run(
    _engine(task, model, privacy, batches='poisson', noise_key=(1, 3))
  )
  _assert_close(first, again, atol=0)
  with pytest.raises(AssertionError):
    _assert_close(first, other)


@pytest.mark.parametrize('batches', ['poisson', 'fixed_size'])
@pytest.mark.parametrize('optimizer', ['sgd', 'adam'])
def test_resumed_run_equals_an_uninterrupted_one(
  task, model, batches, optimizer
):
  def engine():
    return _engine(
      task,
      model,
      _privacy(0.0, 1.0),
      batches=batches,
      optimizer=optimizer,
      decay='linear',
      decay_rounds=4,
      decay_factor=0.1,
    )

  whole, _ = _run(engine(), rounds=3)
  half, _ = _run(engine(), rounds=1)
  rest, _ = _run(engine(), rounds=2, state=half, first=2)
  _assert_close(whole, rest)


def test_fixed_batches_have_unkeyed_noise(task, model):
  privacy = _privacy(1.0, 1.0)
  assert not centralized.has_keyed_noise(privacy, config.Batches.FIXED_SIZE)
  one, _ = _run(_engine(task, model, privacy, batches='fixed_size'))
  other, _ = _run(_engine(task, model, privacy, batches='fixed_size'))
  with pytest.raises(AssertionError):
    _assert_close(one, other)


@pytest.mark.parametrize(
  ('changed', 'flag'),
  [
    ({'optimizer': 'yogi'}, 'client.optimizer'),
    ({'batch_size': 2000}, 'client.batch_size'),
  ],
)
def test_what_cannot_be_done_is_refused(task, model, changed, flag):
  client = {'optimizer': 'sgd', 'batch_size': _BATCH} | changed
  with pytest.raises(validate.UsageError, match=flag):
    centralized.build(
      model,
      keras_factory=task.model_factory,
      loss_factory=task.loss_factory,
      examples=task.train.examples,
      client=config.Client(learning_rate=0.5, **client),
      privacy=_privacy(1.0, 1.0),
      batches=config.Batches.FIXED_SIZE,
      steps_per_round=1,
      seed=0,
      noise_key=(1, 2),
    )


_LENGTH, _WORDS, _SENTENCES = 40, 5, 20


def _words_model():
  return tf.keras.Sequential(
    [
      tf.keras.Input((_LENGTH,), dtype=tf.int32),
      tf.keras.layers.Embedding(_WORDS, 3),
      tf.keras.layers.Dense(_WORDS),
    ]
  )


def _words_step(first_sentence, *, clip_norm):
  """Returns the clipped sum over twenty sentences of one word, but the first.

  Through TensorFlow Privacy's optimizer, without noise.
  """
  y = np.zeros((_SENTENCES, _LENGTH), np.int32)
  y[:, 0] = 1
  y[0] = first_sentence
  examples = client_data.Examples(np.ones_like(y), y)
  objective = objectives.build('next_token')
  steps = tfp_steps.TfpSteps(
    functional.keras_model(_words_model, seed=0),
    objective.loss_factory(),
    examples,
    client=config.Client(batch_size=_SENTENCES, learning_rate=_SENTENCES),
    privacy=_privacy(0.0, clip_norm),
  )
  before = steps.initialize()
  after, _ = steps.run(
    before,
    [np.arange(_SENTENCES)],
    key=None,
    noise_key=None,
    learning_rate=None,
  )
  return np.concatenate(
    [
      (a - b).ravel()
      for a, b in zip(
        before.global_model_weights.trainable,
        after.global_model_weights.trainable,
        strict=True,
      )
    ]
  )


def test_padding_of_one_sentence_does_not_weigh_the_others():
  """The mean over real tokens is that of a sentence, not of its batch."""
  short = np.eye(1, _LENGTH, dtype=np.int32)[0]
  norm = np.linalg.norm(_words_step(short, clip_norm=1e6))
  clip_norm = float(norm) / _SENTENCES
  moved = np.linalg.norm(
    _words_step(short, clip_norm=clip_norm)
    - _words_step(np.full(_LENGTH, 2), clip_norm=clip_norm)
  )
  assert 0 < moved <= 2 * clip_norm * (1 + 1e-5)


def _centred(x):
  return x - tf.reduce_mean(x, axis=0, keepdims=True)


def _dropping_out(task, *first):
  """Returns a functional model of these layers, dropout and a dense one."""

  def factory():
    return tf.keras.Sequential(
      [
        tf.keras.Input(task.input_spec['x'].shape[1:]),
        *first,
        tf.keras.layers.Dropout(0.5),
        tf.keras.layers.Dense(10),
      ]
    )

  return functional.build(
    functional.keras_model(factory, seed=0),
    loss=task.loss_factory(),
    metric_factory=task.metric_factory,
    input_spec=task.input_spec,
  )


def test_model_that_mixes_examples_is_refused_by_tensorflow_privacys_step(task):
  """There an example's gradient would hold the others of its batch."""
  mixing = _dropping_out(task, tf.keras.layers.Lambda(_centred))
  privacy = _privacy(1.0, 0.4)
  with pytest.raises(validate.UsageError, match=r'--task\.model: .*each ex'):
    _engine(task, mixing, privacy, batches='fixed_size')
  _engine(task, mixing, privacy, batches='poisson')


def test_dropout_is_not_taken_for_mixing(task):
  model = _dropping_out(task)
  _engine(task, model, _privacy(1.0, 0.4), batches='fixed_size')

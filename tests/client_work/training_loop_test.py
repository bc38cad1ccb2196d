import collections
import functools

import numpy as np
import pytest
from scipy import stats
import tensorflow as tf
import tensorflow_federated as tff

from tests import small_models
from tff_pipeline import config
from tff_pipeline.algorithms import fed_avg
from tff_pipeline.client_work import protection
from tff_pipeline.client_work import training_loop
from tff_pipeline.models import functional

sgd = tff.learning.optimizers.build_sgdm
_EPOCHS = 2
_BATCH_SIZE = 3
_SIZES = (7, 3, 1, 8)


def _batches(element):
  """The same data as TFF's stock client work wants it."""
  data = tf.data.Dataset.from_tensor_slices(
    collections.OrderedDict(x=element['x'], y=element['y'])
  )
  return data.batch(_BATCH_SIZE).repeat(_EPOCHS)


def _clients(model):
  return [
    small_models.element(*small_models.examples(model, size, seed=i))
    for i, size in enumerate(_SIZES)
  ]


def _fed_avg(model, weighting):
  return fed_avg.build(
    model,
    client_optimizer=sgd(0.3, momentum=0.5),
    server_optimizer=sgd(0.7, momentum=0.9),
    schedule=training_loop.Schedule(
      epochs=_EPOCHS, batch_size=_BATCH_SIZE, shuffle=config.Shuffle.OFF
    ),
    protection=protection.UNPROTECTED,
    aggregator=tff.aggregators.MeanFactory(no_nan_division=True),
    weighting=weighting,
  )


_STOCK = {
  config.Weighting.UNIFORM: tff.learning.algorithms.build_unweighted_fed_avg,
  config.Weighting.NUM_EXAMPLES: tff.learning.algorithms.build_weighted_fed_avg,
}


@pytest.mark.parametrize(
  'factory, weighting',
  [
    (small_models.dense, config.Weighting.UNIFORM),
    pytest.param(
      small_models.dense,
      config.Weighting.NUM_EXAMPLES,
      marks=pytest.mark.slow,
    ),
    (small_models.conv, config.Weighting.NUM_EXAMPLES),
    (small_models.embedding, config.Weighting.UNIFORM),
    (small_models.lstm, config.Weighting.NUM_EXAMPLES),
  ],
  ids=lambda value: getattr(value, '__name__', str(value)),
)
def test_three_rounds_equal_tffs_stock_fed_avg(
  factory, weighting, on_tff_runtime
):
  model = small_models.build(factory)
  clients = _clients(model)
  ours = _fed_avg(model, weighting)
  # From Keras variables: TFF's loop cannot run an LSTM as a functional model.
  stock = _STOCK[weighting](
    lambda: tff.learning.models.from_keras_model(
      functional.keras_model(factory, seed=0),
      small_models.loss(),
      model.input_spec,
      metrics=[
        tf.keras.metrics.SparseCategoricalAccuracy(name='accuracy'),
      ],
    ),
    sgd(0.3, momentum=0.5),
    sgd(0.7, momentum=0.9),
  )
  our_state, their_state = ours.initialize(), stock.initialize()
  dense = [tf.data.Dataset.from_tensors(c) for c in clients]
  batched = [_batches(c) for c in clients]
  for number in range(3):
    cohort = slice(number, None)
    our_output = ours.next(our_state, dense[cohort])
    their_output = stock.next(their_state, batched[cohort])
    our_state, their_state = our_output.state, their_output.state
    for one, other in zip(
      our_state.global_model_weights.trainable,
      their_state.global_model_weights.trainable,
      strict=True,
    ):
      np.testing.assert_allclose(one, other, atol=2e-6, rtol=0)
    for name in ('loss', 'accuracy', 'num_examples', 'num_batches'):
      np.testing.assert_allclose(
        our_output.metrics['client_work']['train'][name],
        their_output.metrics['client_work']['train'][name],
        rtol=1e-5,
      )
    start = model.initial_weights[0][0]
    moved = np.abs(our_state.global_model_weights.trainable[0] - start).max()
    assert moved > 1e-3


def _softmax_regression(x, y, weights, *, rate, epochs, batch_size):
  """Plain NumPy; returns weights, loss per example and hits, as seen."""
  kernel, bias = (np.array(w, np.float64) for w in weights)
  losses, hits = [], []
  for _ in range(epochs):
    for first in range(0, len(y), batch_size):
      rows = slice(first, first + batch_size)
      logits = x[rows] @ kernel + bias
      shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
      shares = shifted / shifted.sum(axis=1, keepdims=True)
      labels = np.eye(small_models.CLASSES)[y[rows]]
      losses.extend(-np.log((shares * labels).sum(axis=1)))
      hits.extend(logits.argmax(axis=1) == y[rows])
      error = (shares - labels) / len(labels)
      kernel = kernel - rate * x[rows].T @ error
      bias = bias - rate * error.sum(axis=0)
  return [kernel, bias], losses, hits


def test_weights_and_metrics_equal_numpy():
  model = small_models.build(small_models.wide)
  x, y = small_models.examples(model, 11)
  train = small_models.Trainer(
    model,
    training_loop.batch_gradient(model),
    optimizer=sgd(0.05),
    epochs=3,
    batch_size=4,
  )
  weights, metrics = train(small_models.element(x, y))
  expected, losses, hits = _softmax_regression(
    x, y, model.initial_weights[0], rate=0.05, epochs=3, batch_size=4
  )
  for one, other in zip(weights, expected, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5)
  assert metrics['num_examples'] == len(losses) == 33
  assert metrics['num_batches'] == 9
  assert metrics['rejected_updates'] == 0
  np.testing.assert_allclose(metrics['loss_sum'], sum(losses), rtol=1e-5)
  total, count = metrics['model']['accuracy']
  assert (total, count) == (sum(hits), 33)


def test_empty_client_changes_nothing():
  model = small_models.build(small_models.dense)
  train = small_models.Trainer(model, training_loop.batch_gradient(model))
  weights, metrics = train(
    small_models.element(*small_models.examples(model, 0))
  )
  for one, other in zip(weights, model.initial_weights[0], strict=True):
    np.testing.assert_array_equal(one, other)
  assert metrics['num_examples'] == metrics['num_batches'] == 0


def _order(key, epoch, size=50, shuffle=config.Shuffle.ON):
  order = training_loop.epoch_order(
    tf.constant(size), tf.constant(key, tf.int64), tf.constant(epoch), shuffle
  )
  return order.numpy().tolist()


def test_each_epoch_is_a_permutation_of_its_own():
  orders = [_order((3, 4), epoch) for epoch in range(20)]
  assert all(sorted(order) == list(range(50)) for order in orders)
  assert len(set(map(tuple, orders))) == 20
  assert orders == [_order((3, 4), epoch) for epoch in range(20)]
  assert not {*map(tuple, orders)} & {
    tuple(_order((4, 3), epoch)) for epoch in range(20)
  }


def test_no_place_is_more_likely_than_another():
  places = [_order((key, 0), 0, size=5).index(0) for key in range(1000)]
  counts = np.bincount(places, minlength=5)
  # Binomial(1000, 1/5): six standard deviations are 76.
  assert np.all(np.abs(counts - 200) < 76)


def test_order_is_the_datas_own_without_shuffling():
  assert _order((3, 4), 1, shuffle=config.Shuffle.OFF) == list(range(50))


def _record_steps(model):
  """A gradient that adds the step's number + 1 where an example is hot."""

  def call(weights, x, y, step):
    number = tf.cast(step.number + 1, tf.float32)
    hot = tf.reduce_sum(x, axis=0)[:, tf.newaxis]
    value = (-number * hot * tf.ones([1, 2]), tf.zeros([2]))
    output = model.predict_on_batch(weights, x, training=step.seed)
    return training_loop.Gradient(value, tf.constant(0.0), output, {})

  return training_loop.GradientFn(call=call)


def _one_hot_model(size):
  def factory():
    return tf.keras.Sequential(
      [
        tf.keras.Input((size,)),
        tf.keras.layers.Dense(2, kernel_initializer='zeros'),
      ]
    )

  return small_models.build(factory)


@pytest.mark.parametrize('shuffle', config.Shuffle)
def test_every_example_is_in_one_batch_of_each_epoch(shuffle):
  model = _one_hot_model(7)
  client = small_models.element(
    np.eye(7, dtype=np.float32), np.zeros(7, np.int32)
  )
  steps = {}
  for epochs in (1, 2):
    train = small_models.Trainer(
      model, _record_steps(model), epochs=epochs, batch_size=3, shuffle=shuffle
    )
    steps[epochs] = train(client)[0][0][:, 0]
  first, second = steps[1], steps[2] - steps[1]
  assert sorted(first) == [1, 1, 1, 2, 2, 2, 3]
  assert sorted(second) == [4, 4, 4, 5, 5, 5, 6]
  in_order = [1, 1, 1, 2, 2, 2, 3]
  assert (first.tolist() == in_order) == (shuffle is config.Shuffle.OFF)


@pytest.mark.parametrize(
  ('max_steps', 'sums'),
  [
    (1, [1, 1, 1, 0, 0, 0, 0]),
    (3, [1, 1, 1, 2, 2, 2, 3]),
    (5, [5, 5, 5, 7, 7, 7, 3]),  # 1 + 4, 2 + 5, 3
    (6, [5, 5, 5, 7, 7, 7, 9]),
    (99, [5, 5, 5, 7, 7, 7, 9]),
  ],
)
def test_client_stops_after_its_last_step(max_steps, sums):
  model = _one_hot_model(7)
  train = small_models.Trainer(
    model,
    _record_steps(model),
    epochs=2,
    batch_size=3,
    max_steps=max_steps,
  )
  weights, metrics = train(
    small_models.element(np.eye(7, dtype=np.float32), np.zeros(7, np.int32))
  )
  assert weights[0][:, 0].tolist() == sums
  assert metrics['num_batches'] == min(max_steps, 6)


def test_step_knows_where_the_round_started():
  model = _one_hot_model(1)

  def call(weights, x, y, step):
    value = tuple(
      w - start + 1.0 for w, start in zip(weights[0], step.start, strict=True)
    )
    output = model.predict_on_batch(weights, x, training=step.seed)
    return training_loop.Gradient(value, tf.constant(0.0), output, {})

  train = small_models.Trainer(
    model,
    training_loop.GradientFn(call=call),
    optimizer=sgd(0.5),
    batch_size=1,
  )
  client = small_models.element(
    np.ones((3, 1), np.float32), np.zeros(3, np.int32)
  )
  weights, _ = train(client, [np.full((1, 2), 9.0), np.zeros(2)])
  # w <- w - (w - 9 + 1)/2: 9, 8.5, 8.25, 8.125.
  assert weights[0] == pytest.approx(8.125)


def test_counts_of_a_gradient_become_metrics():
  model = small_models.build(small_models.dense)
  plain = training_loop.batch_gradient(model)

  def call(weights, x, y, step):
    found = plain.call(weights, x, y, step)
    return found._replace(counts={'odd_labels': tf.reduce_sum(y % 2)})

  train = small_models.Trainer(
    model,
    training_loop.GradientFn(call=call, counts=('odd_labels',)),
    epochs=2,
  )
  x, y = small_models.examples(model, 9)
  _, metrics = train(small_models.element(x, y))
  assert metrics['odd_labels'] == 2 * (y % 2).sum()


def _train_with_dropout(key, seed=None):
  model = small_models.build(small_models.dropout)
  client = small_models.element(*small_models.examples(model, 9), key=key)
  tf.random.set_seed(seed)
  train = small_models.Trainer(model, training_loop.batch_gradient(model))
  return np.concatenate([w.ravel() for w in train(client)[0]])


def test_dropout_follows_the_clients_key():
  first = _train_with_dropout((1, 2))
  np.testing.assert_array_equal(first, _train_with_dropout((1, 2), seed=5))
  assert not np.array_equal(first, _train_with_dropout((1, 3)))


def test_dropout_differs_between_steps():
  model = small_models.build(small_models.dropout)
  seeds = [
    training_loop.step_seed(tf.constant([1, 2], tf.int64), number)
    for number in range(3)
  ]
  x, _ = small_models.examples(model, 4)

  def outputs():
    return [
      model.predict_on_batch(
        tf.nest.map_structure(tf.constant, tuple(model.initial_weights)),
        x,
        training=tf.constant(seed.numpy()),
      )
      for seed in seeds
    ]

  found = small_models.evaluate(outputs)
  assert not np.allclose(found[0], found[1])
  assert not np.allclose(found[1], found[2])


def _counting(model):
  """What `_record_steps` does, as the number of steps that had an example."""

  def call(weights, x, y, step):
    value = (-tf.reduce_sum(x, 0)[:, tf.newaxis] * tf.ones([1, 2]), tf.zeros(2))
    output = model.predict_on_batch(weights, x, training=step.seed)
    return training_loop.Gradient(value, tf.constant(0.0), output, {})

  return training_loop.GradientFn(call=call)


def _times_drawn(examples, *, noise_key=(0, 0), key=(0, 0), **schedule):
  """Returns in how many steps each example was; and the train metrics."""
  model = _one_hot_model(examples)
  train = small_models.Trainer(
    model, _counting(model), batch_size=None, **schedule
  )
  client = small_models.element(
    np.eye(examples, dtype=np.float32),
    np.zeros(examples, np.int32),
    key=key,
    noise_key=noise_key,
  )
  weights, metrics = train(client)
  return np.rint(weights[0][:, 0]).astype(int), metrics


def test_poisson_batches_are_of_independent_coins():
  """In 200 steps an example is in binomially many; chance 1e-6 of an alarm."""
  rate, steps, examples = 0.1, 200, 300
  counts, metrics = _times_drawn(examples, sampling_rate=rate, epochs=20)
  assert metrics['num_batches'] == steps
  assert metrics['num_examples'] == counts.sum()
  total = stats.binom(steps * examples, rate)
  assert total.ppf(5e-7) < counts.sum() < total.isf(5e-7)
  # The counts vary as binomial ones do: not all in a few steps, nor in turn.
  spread = np.sum((counts - steps * rate) ** 2) / (steps * rate * (1 - rate))
  low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], examples)
  assert low < spread < high


def test_the_noise_key_alone_decides_poisson_batches():
  draw = functools.partial(_times_drawn, 40, sampling_rate=0.3)
  first, _ = draw(noise_key=(1, 2))
  assert np.array_equal(first, draw(noise_key=(1, 2), key=(7, 7))[0])
  assert not np.array_equal(first, draw(noise_key=(1, 3))[0])


@pytest.mark.parametrize(
  'examples, epochs, rate, max_steps, steps',
  [
    (5, 1, 0.25, None, 4),
    (5, 3, 0.4, None, 8),  # 7.5, to even.
    (50, 3, 0.4, None, 8),  # Whatever the size.
    (5, 1, 1.0, None, 1),
    (5, 3, 0.25, 7, 7),
    (5, 1, 0.25, 7, 4),
    (0, 1, 0.25, None, 0),
  ],
)
def test_poisson_steps_are_those_that_are_priced(
  examples, epochs, rate, max_steps, steps
):
  client = {'epochs': epochs, 'sampling_rate': rate, 'max_steps': max_steps}
  _, metrics = _times_drawn(examples, **client)
  assert metrics['num_batches'] == steps
  if examples:
    assert config.Client(**client).sampled_steps == steps


def test_stragglers_take_fewer_poisson_steps():
  model = _one_hot_model(3)
  train = small_models.Trainer(
    model,
    _counting(model),
    epochs=4,
    batch_size=None,
    sampling_rate=0.5,
    straggler_share=0.5,
  )
  client = small_models.element(
    np.eye(3, dtype=np.float32), np.zeros(3, np.int32), noise_key=(0, 0)
  )
  client[training_loop.EPOCHS] = np.int64(1)
  assert train(client)[1]['num_batches'] == 2

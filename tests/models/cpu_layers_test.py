"""The CPU layers compute what Keras's do, forwards and backwards."""

import numpy as np
import pytest
import tensorflow as tf

from tests import small_models
from tff_pipeline.models import cpu_layers
from tff_pipeline.models import functional
from tff_pipeline.models import keyed_layers

_keras = tf.keras.layers
# Sums of float32 in another order.
_TOLERANCE = 2e-6
_BATCH, _TIME, _INPUTS = 4, 11, 5


def _run(layer, weights, x, **arguments):
  """Returns the output, and the gradients of the input and all weights."""
  layer.build(x.shape)
  layer.set_weights(weights)

  @tf.function
  def outputs():
    with tf.GradientTape() as tape:
      tape.watch(x)
      y = layer(x, **arguments)
      # Each output and step matters, and none alike.
      loss = tf.reduce_sum(tf.sin(3 * y))
    return [y, *tape.gradient(loss, [x, *layer.trainable_weights])]

  return [t.numpy() for t in outputs()]


def _assert_equal(ours, theirs, x, **arguments):
  theirs.build(x.shape)
  rng = np.random.default_rng(1)
  weights = [
    rng.normal(scale=0.5, size=w.shape).astype(np.float32)
    for w in theirs.weights
  ]
  found = _run(ours, weights, x, **arguments)
  expected = _run(theirs, weights, x, **arguments)
  names = [(w.name, w.shape) for w in theirs.weights]
  assert [(w.name, w.shape) for w in ours.weights] == names
  for one, other in zip(found, expected, strict=True):
    scale = max(1.0, np.abs(other).max())
    np.testing.assert_allclose(one, other, rtol=0, atol=_TOLERANCE * scale)
  return found


def _sequences():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(_BATCH, _TIME, _INPUTS)).astype(np.float32)
  return tf.constant(x)


_MASKS = {
  'no mask': None,
  'tail': np.arange(_TIME) < np.array([[11], [4], [1], [0]]),
  'anywhere': np.random.default_rng(3).random((_BATCH, _TIME)) < 0.6,
}


@pytest.mark.parametrize('mask', _MASKS)
@pytest.mark.parametrize('every_step', [True, False])
def test_lstm_equals_keras(mask, every_step):
  settings = {'units': 7, 'return_sequences': every_step, 'name': 'lstm'}
  _assert_equal(
    cpu_layers.LSTM(**settings),
    _keras.LSTM(**settings),
    _sequences(),
    mask=None if _MASKS[mask] is None else tf.constant(_MASKS[mask]),
  )


def test_masked_steps_neither_change_nor_learn():
  mask = tf.constant(_MASKS['tail'])
  layer = cpu_layers.LSTM(7, return_sequences=True)
  layer.build(_sequences().shape)
  y, dx, *_ = _run(layer, layer.get_weights(), _sequences(), mask=mask)
  np.testing.assert_array_equal(y[1, 4:], np.broadcast_to(y[1, 3], (7, 7)))
  assert not y[3].any()
  assert not dx[~mask].any()
  assert dx[mask].all()


@pytest.mark.parametrize(
  'setting',
  [
    {'go_backwards': True},
    {'activation': 'relu'},
    {'use_bias': False},
    {'unroll': True},
    {'recurrent_activation': 'hard_sigmoid'},
    {'zero_output_for_mask': True},
  ],
  ids=lambda s: next(iter(s)),
)
def test_lstm_leaves_to_keras_what_it_does_not_know(setting):
  settings = {'units': 3, 'return_sequences': True, 'name': 'l', **setting}
  mask = tf.constant(_MASKS['tail'][:, :_TIME])
  _assert_equal(
    cpu_layers.LSTM(**settings),
    _keras.LSTM(**settings),
    _sequences(),
    mask=mask,
  )


def test_lstm_returns_states_as_keras_does():
  layer = cpu_layers.LSTM(3, return_state=True)
  output, h, c = layer(_sequences())
  np.testing.assert_array_equal(output, h)
  again = layer(_sequences(), initial_state=[h, c])[0]
  assert not np.allclose(again, output)


@pytest.mark.parametrize(
  'shape, units, bias, activation',
  [
    ((6, 300), 256, True, 'relu'),
    ((2, 3, 300), 256, True, None),
    ((2, 3, 300), 256, False, 'tanh'),
    ((6, 5), 4, True, 'relu'),
  ],
)
def test_dense_equals_keras(shape, units, bias, activation):
  x = tf.constant(np.random.default_rng(0).normal(size=shape), tf.float32)
  settings = {'use_bias': bias, 'activation': activation, 'name': 'dense'}
  _assert_equal(
    cpu_layers.Dense(units, **settings), _keras.Dense(units, **settings), x
  )


def _operations(layer, x):
  """Returns the kinds of operations of a layer's gradient."""

  @tf.function
  def gradients():
    with tf.GradientTape() as tape:
      tape.watch(x)
      loss = tf.reduce_sum(layer(x))
    return tape.gradient(loss, [x, *layer.trainable_weights])

  layer.build(x.shape)
  definition = gradients.get_concrete_function().graph.as_graph_def()
  bodies = [f.node_def for f in definition.library.function]
  return [node for nodes in (definition.node, *bodies) for node in nodes]


@pytest.mark.parametrize('units, swapped', [(256, True), (16, False)])
def test_large_kernels_are_not_multiplied_transposed(units, swapped):
  x = tf.zeros([6, 300])
  nodes = _operations(cpu_layers.Dense(units, use_bias=False), x)
  assert any(node.op == 'Transpose' for node in nodes) == swapped


def test_weight_gradient_is_one_product_per_weight():
  # Keras's gradient has its products inside the loop, one a step.
  nodes = _operations(cpu_layers.LSTM(7), _sequences())
  loops = [n for n in nodes if n.op in ('While', 'StatelessWhile')]
  assert len(loops) == 2  # Forwards and backwards.
  transposed = [
    n for n in nodes if n.op.startswith('BatchMatMul') and n.attr['adj_x'].b
  ]
  assert len(transposed) == 2  # Kernel and recurrent kernel.


def test_only_keras_own_layers_are_swapped(monkeypatch):
  class Own(_keras.LSTM):
    pass

  assert cpu_layers.faster(_keras.LSTM) is cpu_layers.LSTM
  assert cpu_layers.faster(_keras.Dense) is cpu_layers.Dense
  for other in (Own, _keras.GRU, _keras.Conv2D):
    assert cpu_layers.faster(other) is other
  monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind: [kind])
  assert cpu_layers.faster(_keras.LSTM) is _keras.LSTM


def test_training_copy_uses_them_and_the_model_itself_does_not():
  model = functional.keras_model(small_models.lstm, seed=0)
  with tf.Graph().as_default():
    copy = keyed_layers.clone(model)._model
    kinds = [type(layer) for layer in copy.layers]
  assert cpu_layers.LSTM in kinds
  assert cpu_layers.Dense in kinds
  plain = {layer.__class__.__module__.split('.')[0] for layer in model.layers}
  assert plain == {'keras'}

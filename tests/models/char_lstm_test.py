"""The character LSTM: the papers' size, causality, and plain Keras on disk."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline.models import char_lstm
from tff_pipeline.outputs import saved_model


def _factory():
  return char_lstm.build(input_shape=(80,), num_classes=90)


def test_parameters_of_the_papers():
  # Reddi et al. 2021 (arXiv:2003.00295), table of models: 820,522.
  assert _factory().count_params() == 820_522


def test_logits_for_each_step_and_causal():
  model = _factory()
  rng = np.random.default_rng(0)
  x = rng.integers(0, 90, (3, 80)).astype(np.int32)
  logits = model(x).numpy()
  assert logits.shape == (3, 80, 90)
  later = x.copy()
  later[:, 50:] = 0
  found = model(later).numpy()
  np.testing.assert_allclose(found[:, :50], logits[:, :50], atol=1e-6)
  assert np.abs(found[:, 50:] - logits[:, 50:]).max() > 1e-3


def test_saved_model_holds_keras_layers_only(tmp_path):
  model = _factory()
  rng = np.random.default_rng(1)
  weights = [
    rng.normal(scale=0.1, size=w.shape).astype(np.float32)
    for w in model.trainable_variables
  ]
  saved_model.write(
    tmp_path / 'model',
    _factory,
    tff.learning.models.ModelWeights(weights, []),
  )
  loaded = tf.keras.models.load_model(tmp_path / 'model')
  kinds = collections.Counter(type(layer).__name__ for layer in loaded.layers)
  assert kinds == {'Embedding': 1, 'LSTM': 2, 'Dense': 1}
  for layer in loaded.layers:
    assert type(layer).__module__.startswith('keras.')
  for one, other in zip(loaded.get_weights(), weights, strict=True):
    np.testing.assert_array_equal(one, other)

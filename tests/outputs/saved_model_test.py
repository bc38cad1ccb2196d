"""The saved Keras model, read by Keras alone."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline.outputs import saved_model


def _factory():
  return tf.keras.Sequential(
    [
      tf.keras.layers.Dense(3, activation='relu', input_shape=(4,)),
      tf.keras.layers.Dense(2),
    ]
  )


def _weights(seed):
  rng = np.random.default_rng(seed)
  shapes = [(4, 3), (3,), (3, 2), (2,)]
  return tff.learning.models.ModelWeights(
    [rng.normal(size=s).astype(np.float32) for s in shapes], []
  )


_X = np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4)


def _expected(weights):
  w_1, b_1, w_2, b_2 = weights.trainable
  return np.maximum(_X @ w_1 + b_1, 0) @ w_2 + b_2


def test_keras_alone_predicts_with_the_weights(tmp_path):
  saved_model.write(tmp_path / 'model', _factory, _weights(1))
  np.save(tmp_path / 'x.npy', _X)
  script = (
    'import sys, numpy as np, tensorflow as tf\n'
    'folder = sys.argv[1]\n'
    "model = tf.keras.models.load_model(folder + '/model')\n"
    "y = model(np.load(folder + '/x.npy')).numpy()\n"
    "np.save(folder + '/y.npy', y)\n"
    "assert not [m for m in sys.modules if m.startswith('tff_pipeline')]\n"
  )
  subprocess.run(
    [sys.executable, '-c', script, tmp_path],
    check=True,
    capture_output=True,
    cwd=tmp_path,
  )
  found = np.load(tmp_path / 'y.npy')
  np.testing.assert_allclose(
    found, _expected(_weights(1)), rtol=1e-5, atol=1e-6
  )


def test_write_replaces_what_was_there_and_what_a_crash_left(tmp_path):
  path = tmp_path / 'model'
  saved_model.write(path, _factory, _weights(1))
  (tmp_path / 'model.partial').mkdir()
  (tmp_path / 'model.partial' / 'half').write_text('half')
  saved_model.write(path, _factory, _weights(2))
  found = tf.keras.models.load_model(path)(_X)
  np.testing.assert_allclose(
    found, _expected(_weights(2)), rtol=1e-5, atol=1e-6
  )
  assert [p.name for p in tmp_path.iterdir()] == ['model']


def test_weights_of_another_model_are_a_bug(tmp_path):
  weights = _weights(1)
  fewer = tff.learning.models.ModelWeights(weights.trainable[:3], [])
  with pytest.raises(ValueError, match='zip'):
    saved_model.write(tmp_path / 'model', _factory, fewer)
  assert list(tmp_path.iterdir()) == []


def test_model_that_cannot_be_written_is_an_os_error(tmp_path, monkeypatch):
  saved_model.write(tmp_path / 'model', _factory, _weights(1))

  def full_disk(*args, **kwargs):
    raise tf.errors.ResourceExhaustedError(None, None, 'No space left')

  with monkeypatch.context() as patch:
    patch.setattr(tf.keras.models, 'save_model', full_disk)
    with pytest.raises(OSError, match='model: No space left'):
      saved_model.write(tmp_path / 'model', _factory, _weights(2))
  found = tf.keras.models.load_model(tmp_path / 'model')(_X)
  np.testing.assert_allclose(
    found, _expected(_weights(1)), rtol=1e-5, atol=1e-6
  )

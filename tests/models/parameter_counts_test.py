"""Every model against the number of parameters that its paper states."""

import importlib
import pathlib

import pytest
import tensorflow as tf
from tensorflow_federated.python.simulation.models import resnet_models

from tff_pipeline import models

# Model, input shape, classes, parameters, where the number stands.
COUNTS = [
  ('two_nn', (28, 28, 1), 10, 199_210, 'arXiv:1602.05629, section 3'),
  ('cnn', (28, 28, 1), 10, 1_663_370, 'arXiv:1602.05629, section 3'),
  ('cnn_dropout', (28, 28, 1), 62, 1_206_590, 'arXiv:2003.00295, appendix'),
  ('cnn_dropout', (28, 28, 1), 10, 1_199_882, 'TFF emnist_models'),
  ('autoencoder', (28, 28, 1), 10, 2_837_314, 'arXiv:2003.00295, appendix'),
  ('char_lstm', (80,), 90, 820_522, 'arXiv:2003.00295, appendix'),
  ('word_lstm', (20,), 10_004, 4_050_748, 'arXiv:2003.00295, appendix'),
  ('logistic_regression', (10_000,), 500, 5_000_500, '10,000 x 500 + 500'),
  ('resnet18', (24, 24, 3), 100, 11_227_812, 'TFF resnet_models'),
  ('softmax_regression', (60,), 10, 610, 'arXiv:1812.06127: 60 x 10 + 10'),
  ('softmax_regression', (64,), 10, 650, 'own: 64 x 10 + 10'),
  ('lenet5', (28, 28, 1), 10, 44_426, 'arXiv:2102.02079, section V'),
  (
    'tfp_cnn',
    (28, 28, 1),
    10,
    26_010,
    'TensorFlow Privacy, tutorials',
  ),
  ('wide_mlp', (60,), 10, 71_010, 'arXiv:1607.00133: 60 -> 1,000 -> 10'),
  ('mlp', (64,), 10, 2_410, 'own, see its docstring'),
  ('cnn_1d', (100, 6), 7, 12_135, 'own, see its docstring'),
]
_NOT_MODELS = {
  'cpu_layers',
  'functional',
  'keyed_layers',
  'layers',
  'objectives',
  'preprocessing',
  'split',
}


@pytest.mark.parametrize(
  'name, shape, classes, count, source',
  COUNTS,
  ids=[f'{row[0]}-{row[2]}' for row in COUNTS],
)
def test_parameters(name, shape, classes, count, source):
  module = importlib.import_module(f'tff_pipeline.models.{name}')
  model = module.build(input_shape=shape, num_classes=classes)
  assert model.count_params() == count, source
  assert not model.non_trainable_variables
  kinds = [type(layer) for layer in model._flatten_layers()]
  assert tf.keras.layers.BatchNormalization not in kinds


def test_every_model_is_in_the_table():
  folder = pathlib.Path(models.__file__).parent
  files = {path.stem for path in folder.glob('[a-z]*.py')}
  assert files - _NOT_MODELS == {row[0] for row in COUNTS}


@pytest.mark.slow
def test_resnet_has_the_layers_of_tff():
  module = importlib.import_module('tff_pipeline.models.resnet18')
  ours = module.build(input_shape=(24, 24, 3), num_classes=100)
  theirs = resnet_models.create_resnet18((24, 24, 3), 100)
  assert ours.count_params() == theirs.count_params()

  def shapes(model):
    return sorted(tuple(w.shape) for w in model.trainable_variables)

  assert shapes(ours) == shapes(theirs)

  # The same weights give the same output: matched kind by kind, in the order
  # in which both build them.
  def by_kind(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]

  for kind in (
    tf.keras.layers.Conv2D,
    tf.keras.layers.GroupNormalization,
    tf.keras.layers.Dense,
  ):
    for a, b in zip(by_kind(ours, kind), by_kind(theirs, kind), strict=True):
      assert [w.shape for w in a.weights] == [w.shape for w in b.weights]
      a.set_weights(b.get_weights())
  x = tf.random.stateless_normal((2, 24, 24, 3), (1, 2))
  tf.debugging.assert_near(tf.nn.softmax(ours(x)), theirs(x), atol=1e-5)

"""scikit-learn's handwritten digits: 1,797 images of 8x8; ships with it.

Alpaydin and Kaynak, UCI Optical Recognition of Handwritten Digits (1998).
"""

import pathlib

import numpy as np
from sklearn import datasets
from sklearn import model_selection

from tff_pipeline import config
from tff_pipeline.data import client_data
from tff_pipeline.data import data_set
from tff_pipeline.data import stand_in

NUM_FEATURES = 64
NUM_CLASSES = 10
_TEST_EXAMPLES = 360
# The held-out set is one and the same in every experiment, whatever its seed.
_SPLIT_SEED = 0


def load(task: config.Task, *, data_dir: pathlib.Path) -> data_set.DataSet:
  """Returns 1,437 training and 360 test examples, stratified by label.

  x is float32 in [0, 1], shape [n, 64]; y is int32, shape [n].
  """
  del data_dir  # It ships with scikit-learn.
  is_stand_in = task.source is config.Source.STAND_IN
  if is_stand_in:
    train, test = stand_in.rows(NUM_FEATURES, num_classes=NUM_CLASSES)
  else:
    train, test = _read()
  return data_set.DataSet(
    train=train,
    test=test,
    num_classes=NUM_CLASSES,
    is_stand_in=is_stand_in,
  )


def _read() -> stand_in.Pooled:
  bunch = datasets.load_digits()
  x = (bunch.data / 16.0).astype(np.float32)
  y = bunch.target.astype(np.int32)
  x_train, x_test, y_train, y_test = model_selection.train_test_split(
    x,
    y,
    test_size=_TEST_EXAMPLES,
    stratify=y,
    random_state=_SPLIT_SEED,
  )
  return (
    client_data.Examples(x_train, y_train),
    client_data.Examples(x_test, y_test),
  )

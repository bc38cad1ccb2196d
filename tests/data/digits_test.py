import pathlib

import numpy as np

from tff_pipeline import config
from tff_pipeline.data import digits


def _load():
  task = config.Task(name='digits', partition='iid', clients=2)
  data = digits.load(task, data_dir=pathlib.Path())
  assert data.num_classes == digits.NUM_CLASSES
  return data.train, data.test


def test_digits():
  train, test = _load()
  assert (len(train), len(test)) == (1437, 360)
  for part in (train, test):
    assert part.x.shape[1:] == (64,)
    assert part.x.dtype == np.float32 and part.y.dtype == np.int32
    assert part.x.min() == 0.0 and part.x.max() == 1.0
    assert set(part.y) == set(range(digits.NUM_CLASSES))


def test_train_and_test_are_disjoint_and_the_same_every_time():
  train, test = _load()
  again, _ = _load()
  np.testing.assert_array_equal(train.x, again.x)
  seen = {row.tobytes() for row in train.x}
  assert not any(row.tobytes() in seen for row in test.x)

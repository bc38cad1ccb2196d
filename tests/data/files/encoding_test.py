import numpy as np
import pytest

from tff_pipeline import config
from tff_pipeline.data.files import encoding
from tff_pipeline.data.files import table

_TRAIN = np.array([0, 1, 2, 3])


def _numbers(*values):
  return table.Numbers('n', np.array(values, float))


def _names(*values):
  names = tuple(dict.fromkeys(v for v in values if v))
  return table.Categories(
    'c', np.array([names.index(v) if v else -1 for v in values]), names
  )


def _encoded(column, rows=None, scaling=None):
  learnt = encoding.learn([column], _TRAIN, scaling=scaling)
  rows = np.arange(len(column.missing)) if rows is None else rows
  return encoding.apply(learnt, [column], rows)


def test_training_rows_alone_decide_mean_and_deviation():
  column = _numbers(1, 2, 3, 4, 1e9, -1e9)
  found = _encoded(column, _TRAIN)
  assert found.mean() == pytest.approx(0, abs=1e-6)
  assert found.std() == pytest.approx(1)
  other = _numbers(1, 2, 3, 4, 7, 8)
  assert encoding.learn([column], _TRAIN, scaling=None) == encoding.learn(
    [other], _TRAIN, scaling=None
  )


def test_training_rows_alone_decide_the_categories():
  column = _names('b', 'a', 'b', 'a', 'unseen', 'b')
  found = _encoded(column)
  assert found.tolist() == [[0, 1], [1, 0], [0, 1], [1, 0], [0, 0], [0, 1]]


def test_empty_cells():
  found = _encoded(_numbers(1, np.nan, 3, 5, np.nan))
  assert found[1].tolist() == found[4].tolist() == [0.0, 1.0]
  assert found[[0, 2, 3], 1].tolist() == [0, 0, 0]
  unmarked = _encoded(_numbers(1, 2, 3, 6, np.nan))
  assert unmarked.shape == (5, 1) and unmarked[4] == 0.0
  assert _encoded(_names('a', None, 'b', 'a'))[1].tolist() == [0, 0]


def test_empty_cells_without_scaling_are_the_training_mean():
  found = _encoded(_numbers(1, np.nan, 3, 5, 100), scaling=config.Scaling.NONE)
  assert found[:, 0].tolist() == [1, 3, 3, 5, 100]


@pytest.mark.parametrize('value', [0.0, 0.1, 1e12, -3.3e-7])
def test_constant_column_is_zero(value):
  assert np.abs(_encoded(_numbers(*[value] * 5))).max() < 1e-3


def test_large_numbers_keep_their_differences():
  # Seconds since 1970: as float32 they would be the same.
  found = _encoded(_numbers(1.7e9, 1.7e9 + 1, 1.7e9 + 2, 1.7e9 + 3))
  np.testing.assert_allclose(np.diff(found[:, 0]), 1 / np.std([0, 1, 2, 3]))


def test_columns_stand_side_by_side():
  columns = [_numbers(0, 1, 0, 1), _names('a', 'b', 'a', 'b')]
  learnt = encoding.learn(columns, _TRAIN, scaling=None)
  found = encoding.apply(learnt, columns, np.array([3, 0]))
  assert found.tolist() == [[1, 0, 1], [-1, 1, 0]]

import pathlib

import numpy as np
import pandas as pd
import psutil
import pytest

from tests.data.files import own_data
from tff_pipeline import validate
from tff_pipeline.data.files import delimited
from tff_pipeline.data.files import parquet

_NOWHERE = pathlib.Path('unused')


def _load(folder, frame, **leaves):
  path = folder / 'own.parquet'
  frame.to_parquet(path)
  return parquet.load(own_data.task(path, **leaves), data_dir=_NOWHERE)


def _from_csv(folder, frame, **leaves):
  path = own_data.csv(folder, frame)
  return delimited.load(own_data.task(path, **leaves), data_dir=_NOWHERE)


TYPES = {
  'plain': lambda f: f,
  'categories': lambda f: f.astype({'city': 'category', 'user': 'category'}),
  'small numbers': lambda f: f.astype({'age': 'int8', 'income': 'float32'}),
  'numbers as text': lambda f: f.astype({'age': 'str'}),
}


@pytest.mark.parametrize('change', TYPES.values(), ids=TYPES)
def test_same_rows_as_from_csv(tmp_path, change):
  frame = own_data.frame()
  ours = _load(tmp_path, change(frame))
  theirs = _from_csv(tmp_path, frame)
  np.testing.assert_allclose(
    ours.train.examples.x, theirs.train.examples.x, atol=1e-5
  )
  np.testing.assert_array_equal(ours.train.offsets, theirs.train.offsets)
  np.testing.assert_array_equal(ours.test.y, theirs.test.y)


def test_cells_that_do_not_fit_into_memory_are_refused(tmp_path, monkeypatch):
  memory = psutil.virtual_memory()._replace(available=1_000)
  monkeypatch.setattr(psutil, 'virtual_memory', lambda: memory)
  with pytest.raises(validate.UsageError, match='into the 1000 bytes of free'):
    _load(tmp_path, own_data.frame())


def test_booleans_are_numbers(tmp_path):
  frame = own_data.frame()
  frame['age'] = frame.age > 50
  data = _load(
    tmp_path,
    frame,
    scaling='none',
    feature_columns='age',
    categorical_columns=None,
  )
  assert set(data.train.examples.x[:, 0]) == {0.0, 1.0}


@pytest.mark.parametrize(
  'cell, said',
  [
    (pd.Timestamp('2020-01-01'), 'expected a number in'),
    ([1, 2], 'expected a number in'),
  ],
)
def test_types_that_are_no_numbers_are_refused(tmp_path, cell, said):
  frame = own_data.frame()
  frame['age'] = [cell] * len(frame)
  with pytest.raises(validate.UsageError, match=said):
    _load(tmp_path, frame)


def test_empty_cell_has_a_row_counted_from_one(tmp_path):
  frame = own_data.frame()
  frame.loc[7, 'income'] = np.nan
  with pytest.raises(validate.UsageError, match='row 8, column income'):
    _load(tmp_path, frame)


@pytest.mark.parametrize('keep', [0, 10, 500])
def test_damaged_file_is_refused(tmp_path, keep):
  path = tmp_path / 'own.parquet'
  own_data.frame().to_parquet(path)
  path.write_bytes(path.read_bytes()[:keep])
  with pytest.raises(validate.UsageError, match='a whole parquet file'):
    parquet.prepare(own_data.task(path), data_dir=_NOWHERE)

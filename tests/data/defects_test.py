"""What no model can learn from is refused with its row and client."""

import dataclasses
import logging

import numpy as np
import pytest

from tff_pipeline import config
from tff_pipeline import tasks
from tff_pipeline import validate
from tff_pipeline.data import client_data
from tff_pipeline.data import data_set
from tff_pipeline.data import defects
from tff_pipeline.data import digits

_SIZES = (3, 0, 4, 5)  # One client is empty.


def _examples(rows=12, **changes):
  values = {
    'x': np.linspace(0, 1, rows * 2, dtype=np.float32).reshape(rows, 2),
    'y': np.arange(rows, dtype=np.int32) % 4,
  }
  return client_data.Examples(**values | changes)


def _data(*, clients=True, test=None, **changes):
  own = {k: changes.pop(k) for k in ('x', 'y') if k in changes}
  train = _examples(**own)
  if clients:
    offsets = np.concatenate([[0], np.cumsum(_SIZES)]).astype(np.int64)
    train = client_data.ClientData(train, offsets)
  like = client_data.Examples(
    x=np.zeros((1, *_pooled(train).x.shape[1:]), _pooled(train).x.dtype),
    y=np.zeros((1, *_pooled(train).y.shape[1:]), _pooled(train).y.dtype),
  )
  return data_set.DataSet(
    train=train, test=like if test is None else test, num_classes=4, **changes
  )


def _pooled(train):
  return train.examples if hasattr(train, 'examples') else train


def _x(row, column, value):
  x = _examples().x.copy()
  x[row, column] = value
  return x


def _y(row, value):
  y = _examples().y.copy()
  y[row] = value
  return y


def _tokens(row=None, value=0):
  x = np.ones((12, 3), np.int32)
  if row is not None:
    x[row, 1] = value
  return x


_REFUSED = {
  'nan': ({'x': _x(4, 1, np.nan)}, 'finite features, found nan'),
  'infinity': ({'x': _x(4, 0, -np.inf)}, 'finite features, found -inf'),
  'label too large': ({'y': _y(4, 4)}, 'labels below 4.*found 4'),
  'label negative': ({'y': _y(4, -1)}, 'labels below 4.*found -1'),
  'token too large': (
    {'x': _tokens(4, 9), 'vocabulary_size': 9},
    'token ids below 9.*found 9',
  ),
  'token fraction': (
    {'x': _tokens().astype(np.float32) + 0.5, 'vocabulary_size': 9},
    'token ids below 9.*found 1.5',
  ),
  'next token too large': (
    {'y': _tokens(4, 4), 'objective': 'next_token'},
    'labels below 4.*found 4',
  ),
  'tag': ({'y': _tokens(4, 2), 'objective': 'tags'}, '0 or 1, found 2'),
}


@pytest.mark.parametrize(
  ('changes', 'message'), _REFUSED.values(), ids=list(_REFUSED)
)
def test_bad_row_is_named_with_its_client(changes, message):
  with pytest.raises(validate.UsageError, match=message) as refused:
    defects.check(_data(**changes), name='mine')
  text = str(refused.value)
  assert text.startswith('--task.name: ')
  assert len(text.splitlines()) == 1
  if 'fraction' not in message and '1.5' not in message:
    # Rows 3 to 6 are client 2's; client 1 is empty.
    assert 'row 4 of the train examples of mine, row 1 of client 2' in text


def test_pooled_data_has_no_clients_to_name():
  with pytest.raises(validate.UsageError) as refused:
    defects.check(_data(clients=False, y=_y(4, 4)), name='mine')
  assert 'row 4 of the train examples of mine.' in str(refused.value)


_FORMS = {
  'text': ({'x': np.array([['a', 'b']] * 12)}, 'numbers as x.*<U1'),
  'objects': ({'x': np.array([[{}, 1]] * 12, object)}, 'numbers as x.*object'),
  'complex': ({'x': np.ones((12, 2), complex)}, 'numbers as x.*complex'),
  'float labels': ({'y': np.ones(12, np.float32)}, 'one whole number.*float32'),
  'rows of labels': ({'y': np.ones((12, 1), np.int32)}, 'one whole number'),
  'no bytes': (
    {'y': np.ones((12, 2), np.int32), 'objective': 'reconstruction'},
    'bytes.*int32',
  ),
  'other shape': ({'test': _examples(x=np.ones((12, 3), np.float32))}, 'shape'),
  'other type': ({'test': _examples(x=np.ones((12, 2)))}, 'float64'),
  'nothing held out': ({'test': _examples(rows=0)}, 'at least one example'),
}


@pytest.mark.parametrize(
  ('changes', 'message'), _FORMS.values(), ids=list(_FORMS)
)
def test_wrong_types_and_shapes_are_refused(changes, message):
  with pytest.raises(validate.UsageError, match=message):
    defects.check(_data(**changes), name='mine')


def test_bad_row_beyond_the_first_part_is_found(monkeypatch):
  monkeypatch.setattr(defects, '_ROWS_AT_ONCE', 5)
  with pytest.raises(validate.UsageError, match='row 11 of the train'):
    defects.check(_data(y=_y(11, 7)), name='mine')


def test_held_out_clients_are_checked_too():
  offsets = np.array([0, 12], np.int64)
  bad = client_data.ClientData(_examples(y=_y(2, 9)), offsets)
  with pytest.raises(validate.UsageError, match='client_test.*client 0'):
    defects.check(_data(client_test=bad), name='mine')


@pytest.mark.parametrize(
  'changes',
  [
    {},
    {'x': _tokens(), 'vocabulary_size': 2},
    {'x': np.ones((12, 2), np.uint8)},
    {'y': _tokens() % 2, 'objective': 'tags'},
    {'y': np.ones((12, 2), np.uint8), 'objective': 'reconstruction'},
  ],
)
def test_good_data_passes(changes):
  defects.check(_data(**changes), name='mine')


def test_odd_clients_are_said(caplog):
  caplog.set_level(logging.WARNING)
  defects.check(_data(), name='mine')
  assert '1 of the 4 clients of mine have no examples' in caplog.text
  assert 'the first is client 1' in caplog.text
  caplog.clear()
  sizes = np.array([1] * 9 + [991])
  offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
  train = client_data.ClientData(_examples(rows=1000), offsets)
  defects.check(dataclasses.replace(_data(), train=train), name='mine')
  assert 'Client 9 of mine has 991 examples' in caplog.text
  assert 'no examples' not in caplog.text


def test_task_is_not_built_on_bad_data(monkeypatch):
  load = digits.load

  def broken(task, *, data_dir):
    loaded = load(task, data_dir=data_dir)
    loaded.train.x[7, 3] = np.nan
    return loaded

  monkeypatch.setattr(digits, 'load', broken)
  task = config.Task(name='digits', partition='iid', clients=3)
  with pytest.raises(validate.UsageError, match='found nan in row 7 of the'):
    tasks.build(task, seed=0)

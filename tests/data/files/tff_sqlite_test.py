import dataclasses
import pathlib
import sqlite3

import numpy as np
import pytest
import tensorflow as tf

from tests.data import sqlite_files
from tff_pipeline import config
from tff_pipeline import tasks
from tff_pipeline import validate
from tff_pipeline.data.files import tff_sqlite

_NOWHERE = pathlib.Path('unused')


@pytest.fixture(name='task', scope='module')
def fixture_task(tmp_path_factory):
  path = sqlite_files.write(
    tmp_path_factory.mktemp('sqlite') / 'own.sqlite', clients=12
  )
  return config.Task(
    name='tff_sqlite', path=str(path), label_column='label', classes=10
  )


def _load(task, **leaves):
  task = dataclasses.replace(task, **leaves)
  tff_sqlite.prepare(task, data_dir=_NOWHERE)
  return tff_sqlite.load(task, data_dir=_NOWHERE)


def test_clients_are_what_was_written(task):
  data = _load(task)
  assert data.train.num_clients == 12
  for i in range(12):
    x, y = sqlite_files.client(i)
    np.testing.assert_array_equal(data.train.client(i)['x'], x)
    np.testing.assert_array_equal(data.train.client(i)['y'], y)
  assert data.train.client(0)['y'].dtype == data.train.prototype.y.dtype
  assert data.train.client(0)['x'].dtype == data.train.prototype.x.dtype


def test_test_examples_are_those_of_whole_test_clients(task):
  everything = _load(task).test
  wanted = np.concatenate([sqlite_files.client(i)[1] for i in range(12, 32)])
  np.testing.assert_array_equal(everything.y, wanted)
  some = _load(task, test_examples=60).test
  assert 40 < len(some) <= 60
  rows = {row.tobytes() for row in everything.x}
  assert all(row.tobytes() in rows for row in some.x)
  assert len(_load(task, test_examples=1).test) == 1


def test_limits_on_clients_and_examples(task):
  data = _load(task, max_clients=3, max_client_examples=2)
  assert data.train.client_sizes.tolist() == [2, 2, 2]


def test_task_streams(task):
  built = tasks.build(task, seed=0)
  assert built.input_spec['x'].shape.as_list() == [None, 64]
  assert built.train.num_clients == 12


def _example(**features):
  return tf.train.Example(
    features=tf.train.Features(feature=features)
  ).SerializeToString()


def _floats(*values):
  return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _ints(*values):
  return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


_PIXELS = _floats(*[0.5] * 64)
BAD = {
  'label too large': (_example(pixels=_PIXELS, label=_ints(10)), 'another lab'),
  'label below zero': (_example(pixels=_PIXELS, label=_ints(-1)), 'another la'),
  'not finite': (
    _example(pixels=_floats(*[np.nan] * 64), label=_ints(1)),
    'infinity or NaN',
  ),
  'too few': (_example(pixels=_floats(1.0), label=_ints(1)), 'other features'),
  'no label': (_example(pixels=_PIXELS), 'other features'),
  'other kind': (
    _example(pixels=_PIXELS, label=_floats(1.0)),
    'other features',
  ),
  'no proto': (b'\xff\xff\xff', 'other features'),
}


@pytest.mark.parametrize('blob, found', BAD.values(), ids=BAD)
def test_bad_example_is_named_by_client_and_place(tmp_path, task, blob, found):
  copy = tmp_path / 'bad.sqlite'
  copy.write_bytes(pathlib.Path(task.path).read_bytes())
  with sqlite3.connect(copy) as connection:
    (row,) = connection.execute(
      'SELECT min(rowid) + 2 FROM examples WHERE client_id = ?',
      ('user000000005',),
    ).fetchone()
    connection.execute(
      'UPDATE examples SET serialized_example_proto = ? WHERE rowid = ?',
      (blob, row),
    )
  connection.close()
  data = _load(task, path=str(copy))
  with pytest.raises(validate.UsageError) as caught:
    data.train.gather(np.array([7, 5, 2]))
  message = str(caught.value)
  assert 'client 5 (by id, from 0), example 3, found ' + found in message
  assert 'user0' not in message


@pytest.mark.parametrize(
  'leaves, flag',
  [
    ({'label_column': 'pixels'}, 'label_column'),
    ({'label_column': 'lable'}, 'label_column'),
    ({'feature_columns': 'pixel'}, 'feature_columns'),
  ],
)
def test_refuses_features_that_are_not_there(task, leaves, flag):
  with pytest.raises(validate.UsageError, match=f'^--task.{flag}: '):
    _load(task, **leaves)


def test_text_features_are_refused(tmp_path):
  path = tmp_path / 'text.sqlite'
  with sqlite3.connect(path) as connection:
    for statement in (*sqlite_files._TABLES, sqlite_files.INDEX):
      connection.execute(statement)
    text = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b'to be']))
    connection.execute(
      "INSERT INTO examples VALUES ('train', 'a', ?)",
      (_example(snippets=text, label=_ints(1)),),
    )
    connection.execute("INSERT INTO client_metadata VALUES ('a', 'train', 1)")
  connection.close()
  task = config.Task(
    name='tff_sqlite', path=str(path), label_column='label', classes=2
  )
  with pytest.raises(validate.UsageError, match='text needs a task of its own'):
    _load(task)

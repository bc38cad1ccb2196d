import sqlite3

import numpy as np
import pytest

from tests.data import sqlite_files
from tff_pipeline import validate
from tff_pipeline.data import sqlite_stream


@pytest.fixture(name='path', scope='module')
def fixture_path(tmp_path_factory):
  return sqlite_files.write(
    tmp_path_factory.mktemp('sqlite') / 'own.sqlite', clients=12
  )


def _opened(path):
  return sqlite_stream.Database(path, flag='task.path')


def _changed(tmp_path, path, *statements):
  copy = tmp_path / 'changed.sqlite'
  copy.write_bytes(path.read_bytes())
  with sqlite3.connect(copy) as connection:
    for statement in statements:
      connection.execute(statement)
  connection.close()
  return copy


def test_clients_are_in_the_order_of_their_ids(path):
  split = _opened(path).split('train')
  assert split.ids == [f'user{i:09d}' for i in range(12)]
  assert split.sizes.tolist() == [
    len(sqlite_files.client(i)[1]) for i in range(12)
  ]


@pytest.mark.parametrize('chosen', [[0], [11, 3, 4], []], ids=str)
def test_rows_come_back_in_order(path, chosen):
  database = _opened(path)
  found = database.read(database.split('train'), np.array(chosen, int))
  assert found == [
    sqlite_files.serialized(x, y)
    for i in chosen
    for x, y in zip(*sqlite_files.client(i), strict=True)
  ]


def test_first_clients_and_first_examples(path):
  database = _opened(path)
  split = database.split('train', clients=3, examples=2)
  assert split.sizes.tolist() == [2, 2, 2]
  whole = database.read(database.split('train'), np.array([1]))
  assert database.read(split, np.array([1])) == whole[:2]


BROKEN = {
  'no examples': (['DROP TABLE examples'], 'a table examples with'),
  'no metadata': (['DROP TABLE client_metadata'], 'a table client_metadata'),
  'a view': (
    [
      'ALTER TABLE client_metadata RENAME TO hidden',
      'CREATE VIEW client_metadata AS SELECT * FROM hidden',
    ],
    'a table client_metadata',
  ),
  'column': (
    ['ALTER TABLE client_metadata RENAME COLUMN num_examples TO n'],
    'with the columns client_id, num_examples, split_name',
  ),
  'index': (['DROP INDEX by_client'], 'CREATE INDEX by_client'),
  'other splits': (
    ["UPDATE client_metadata SET split_name = 'all'"],
    'clients in the split train',
  ),
  'no rows': (
    ['UPDATE client_metadata SET num_examples = 0'],
    'examples in the split train',
  ),
  'a client twice': (
    [
      'INSERT INTO client_metadata SELECT * FROM client_metadata '
      "WHERE client_id = 'user000000003'"
    ],
    'each client once.*found some more often',
  ),
  'fewer than no examples': (
    ["UPDATE client_metadata SET num_examples = -1 WHERE split_name = 'train'"],
    'a whole number as num_examples',
  ),
  'numbers as ids': (
    [
      'DROP TABLE client_metadata',
      'CREATE TABLE client_metadata (client_id, split_name, num_examples)',
      "INSERT INTO client_metadata VALUES (1, 'train', 1)",
    ],
    'text as client_id',
  ),
}


@pytest.mark.parametrize('statements, said', BROKEN.values(), ids=BROKEN)
def test_refuses(tmp_path, path, statements, said):
  with pytest.raises(validate.UsageError, match=said):
    _opened(_changed(tmp_path, path, *statements)).split('train')


@pytest.mark.parametrize('keep', [10, 5_000])
def test_damaged_file_is_refused(tmp_path, path, keep):
  damaged = tmp_path / 'damaged.sqlite'
  damaged.write_bytes(path.read_bytes()[:keep])
  with pytest.raises(validate.UsageError, match='^--task.path: '):
    database = _opened(damaged)
    database.read(database.split('train'), np.arange(12))


@pytest.mark.parametrize('by, said', [(1, 'found'), (-1, 'or more')])
def test_metadata_that_lie_are_noticed_without_showing_ids(
  tmp_path, path, by, said
):
  changed = _changed(
    tmp_path,
    path,
    f'UPDATE client_metadata SET num_examples = num_examples + {by}'
    " WHERE client_id = 'user000000004'",
  )
  database = _opened(changed)
  with pytest.raises(validate.UsageError, match=said) as caught:
    database.read(database.split('train'), np.arange(12))
  assert 'of client 4 (' in str(caught.value)
  assert 'user0' not in str(caught.value)


def test_file_is_opened_for_reading_only(path):
  with pytest.raises(sqlite3.OperationalError):
    _opened(path)._connection.execute('DROP TABLE examples')

"""Reading TFF's SQLite format: limits, order, chunks, and damaged files."""

import sqlite3

import numpy as np
import pytest

from tests import tiny_files
from tff_pipeline import validate
from tff_pipeline.data import client_data
from tff_pipeline.data import sqlite_clients

_RNG = np.random.default_rng(0)
_NUMBERS = sqlite_clients.Format(
  features={'x': (np.int64, ()), 'y': (np.int64, ())},
  encode=lambda columns: (columns['x'], columns['y'], None),
)


def _number():
  return {'x': _RNG.integers(0, 1000), 'y': _RNG.integers(0, 1000)}


@pytest.fixture
def numbers(tmp_path):
  path = tmp_path / 'numbers.sqlite'
  tiny_files.sqlite(path, tiny_files.splits(_number))
  return path


def test_limits_read_the_first_clients_alone(numbers, monkeypatch):
  names, whole = sqlite_clients.read(numbers, 'train', format=_NUMBERS)
  assert names == ['a', 'b', 'c']
  names, two = sqlite_clients.read(
    numbers, 'train', format=_NUMBERS, max_clients=2
  )
  assert names == ['a', 'b']
  cut = client_data.first(whole, clients=2)
  np.testing.assert_array_equal(two.examples.x, cut.examples.x)
  np.testing.assert_array_equal(two.offsets, cut.offsets)
  _, rows = sqlite_clients.read(numbers, 'train', format=_NUMBERS, max_rows=4)
  np.testing.assert_array_equal(rows.examples.x, whole.examples.x[:4])
  assert rows.client_sizes.tolist() == [2, 2, 0]


def test_first_clients_keep_their_own_test_data(numbers):
  """The first two clients of the test split are b and c, and not a and b."""
  train, by_client, pooled = sqlite_clients.read_parts(
    numbers, ('train', 'test'), format=_NUMBERS, max_clients=2
  )
  _, everyone = sqlite_clients.read(numbers, 'test', format=_NUMBERS)
  assert train.client_sizes.tolist() == [2, 3]
  assert by_client.client_sizes.tolist() == [0, 2]
  np.testing.assert_array_equal(pooled.x, everyone.client(0)['x'])
  np.testing.assert_array_equal(pooled.x, by_client.client(1)['x'])


def test_chunks_do_not_matter(numbers, monkeypatch):
  _, whole = sqlite_clients.read(numbers, 'train', format=_NUMBERS)
  monkeypatch.setattr(sqlite_clients, '_CHUNK', 2)
  _, chunked = sqlite_clients.read(numbers, 'train', format=_NUMBERS)
  np.testing.assert_array_equal(whole.examples.x, chunked.examples.x)
  np.testing.assert_array_equal(whole.offsets, chunked.offsets)


def test_an_example_may_become_several_rows_or_none(numbers):
  def encode(columns):
    counts = np.arange(len(columns['x']))
    return tuple(np.repeat(columns[k], counts) for k in 'xy') + (counts,)

  format = sqlite_clients.Format(features=_NUMBERS.features, encode=encode)
  _, plain = sqlite_clients.read(numbers, 'train', format=_NUMBERS)
  _, data = sqlite_clients.read(numbers, 'train', format=format)
  # In the file: the first row of b, c and a, the second of b and a, b's third.
  assert data.client_sizes.tolist() == [2 + 4, 0 + 3 + 5, 1]
  a0, a1 = plain.client(0)['x']
  assert data.client(0)['x'].tolist() == [a0] * 2 + [a1] * 4


def test_other_peoples_test_data_has_no_client(numbers):
  data = client_data.ClientData(
    client_data.Examples(np.arange(2), np.arange(2)), np.array([0, 2])
  )
  train = (['a', 'b'], data)
  assert sqlite_clients.by_client(train, (['z'], data)) is None
  ordered = sqlite_clients.by_client(train, (['b'], data))
  assert ordered.client_sizes.tolist() == [0, 2]


def test_reading_leaves_a_read_only_folder_alone(numbers):
  before = sorted(p.name for p in numbers.parent.iterdir())
  numbers.chmod(0o400)
  numbers.parent.chmod(0o500)
  try:
    sqlite_clients.read(numbers, 'train', format=_NUMBERS)
    assert sorted(p.name for p in numbers.parent.iterdir()) == before
  finally:
    numbers.parent.chmod(0o700)


def _refusal(path, split='train', format=_NUMBERS):
  with pytest.raises(validate.UsageError) as caught:
    sqlite_clients.read(path, split, format=format)
  message = str(caught.value)
  assert message.startswith('--data_dir: expected a whole and unchanged ')
  assert '\n' not in message
  return message


@pytest.mark.parametrize('keep', [0, 10, 100, 4096, -1, -4096])
def test_truncated_file(numbers, keep):
  numbers.write_bytes(numbers.read_bytes()[:keep])
  _refusal(numbers)


def test_no_database(numbers):
  numbers.write_bytes(b'no database' * 500)
  assert 'says SQLite' in _refusal(numbers)
  numbers.unlink()
  _refusal(numbers)


@pytest.mark.parametrize(
  'statements, named',
  [
    (['DROP TABLE examples'], 'no table examples'),
    (['DROP TABLE client_metadata'], 'no table client_metadata'),
    (
      [
        'ALTER TABLE examples RENAME TO e',
        'CREATE VIEW examples AS SELECT * FROM e',
      ],
      'no table examples',
    ),
    (
      ['ALTER TABLE examples RENAME COLUMN split_name TO split'],
      'no column split_name',
    ),
    (['DELETE FROM client_metadata'], 'no clients in the split train'),
    (['DELETE FROM examples'], 'no examples'),
    (["UPDATE examples SET client_id = 'nobody'"], 'no examples'),
    (['UPDATE examples SET serialized_example_proto = 7'], 'no blob'),
    (
      ["UPDATE examples SET serialized_example_proto = x'ff'"],
      'an example in it',
    ),
    (["UPDATE examples SET serialized_example_proto = x''"], 'an example'),
    (["UPDATE client_metadata SET client_id = x'00'"], 'no text'),
  ],
)
def test_other_content(numbers, statements, named):
  db = sqlite3.connect(numbers)
  for statement in statements:
    db.execute(statement)
  db.commit()
  db.close()
  assert named in _refusal(numbers)

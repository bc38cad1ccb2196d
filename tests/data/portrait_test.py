import numpy as np
import pytest

from tff_pipeline.data import client_data
from tff_pipeline.data import portrait as portraits


def _clients(labels, x=None):
  """Returns clients with these labels each."""
  sizes = [len(one) for one in labels]
  y = np.concatenate([np.array(one, np.int32) for one in labels])
  x = np.zeros((len(y), 3), np.float32) if x is None else x
  offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
  return client_data.ClientData(client_data.Examples(x, y), offsets)


def _portrait(data, *, num_classes=3, has_tokens=False):
  return portraits.of(data, num_classes=num_classes, has_tokens=has_tokens)


def test_counts_and_shares():
  found = _portrait(_clients([[0, 0, 1], [2], [], [1, 1]]))
  assert found.sizes.tolist() == [3, 1, 0, 2]
  assert found.label_counts.tolist() == [
    [2, 1, 0],
    [0, 0, 1],
    [0, 0, 0],
    [0, 2, 0],
  ]
  assert found.majority.tolist() == pytest.approx([2 / 3, 1.0, 1.0])


def test_words():
  text = portraits.describe(
    _portrait(_clients([[0, 0, 1], [2], [], [1, 1]])), ('cat', 'dog', 'eel')
  )
  for words in (
    '4 clients, 6 training examples.',
    'of a client: 0 to 3, median 1.5, mean 1.5;',
    '1 clients have no examples.',
    'Labels: dog 50.0%, cat 33.3%, eel 16.7%.',
    'A client has 0 to 2 of 3 labels, median 1.',
  ):
    assert words in text


def test_of_many_clients_some_are_read():
  labels = [[k % 3] for k in range(1_000)]
  found = _portrait(_clients(labels))
  assert len(found.shown) == len(found.examples) == portraits.MAX_CLIENTS
  assert found.shown[0] == 0 and found.shown[-1] == 999
  for client, one in zip(found.shown, found.examples, strict=True):
    assert one.y.tolist() == labels[client]
  assert 'is of 200 of the clients' in portraits.describe(found, ())


KINDS = {
  'images': (np.zeros((2, 5, 5, 1), np.uint8), False),
  'sequences': (np.zeros((2, 9, 4), np.float32), False),
  'tokens': (np.zeros((2, 9), np.int32), True),
  'features': (np.zeros((2, 9), np.float32), False),
}


@pytest.mark.parametrize('kind, given', KINDS.items(), ids=KINDS)
def test_kinds(kind, given):
  x, has_tokens = given
  found = _portrait(_clients([[0, 1]], x), has_tokens=has_tokens)
  assert found.kind == kind


@pytest.mark.parametrize(
  'x, sides',
  [
    (np.ones((3, 64)), (8, 8)),
    (np.ones((3, 63)), None),
    (np.full((3, 64), 1.1), None),
    (np.full((3, 64), -0.1), None),
    (np.ones((3, 16)), None),
    (np.ones((3, 8, 8)), None),
    (np.ones((0, 64)), None),
  ],
)
def test_flat_rows_that_are_images(x, sides):
  assert portraits.image_shape(x) == sides


def test_texts():
  x = np.array([[2, 1, 4, 9, 0], [1, 1, 1, 1, 1]])
  found = _portrait(_clients([[], [0], [1]], x), has_tokens=True)
  assert portraits.texts(found, 'ab c') == ['bac', 'aaaaa']
  assert portraits.texts(found, None) == ['2 1 4 9', '1 1 1 1 1']
  assert len(portraits.texts(found, None, clients=1)) == 1


def test_labels_that_are_no_classes():
  y = np.zeros((2, 5), np.int32)
  data = client_data.ClientData(
    client_data.Examples(np.zeros((2, 5)), y), np.array([0, 1, 2])
  )
  found = _portrait(data)
  assert found.label_counts is None
  assert 'Labels' not in portraits.describe(found, ())

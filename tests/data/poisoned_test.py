"""Who is dishonest, and what happens to whose examples."""

import numpy as np
import pytest

from tff_pipeline.data import client_data
from tff_pipeline.data import poisoned


def _data():
  y = np.tile(np.arange(4, dtype=np.int32), 10)
  x = np.arange(40 * 6, dtype=np.float32).reshape(40, 6) / 240
  return client_data.ClientData(
    client_data.Examples(x, y), np.array([0, 8, 8, 24, 40], np.int64)
  )


@pytest.mark.parametrize(
  'share, count', [(0, 0), (0.1, 10), (0.25, 25), (1, 100)]
)
def test_share_of_the_population(share, count):
  who = poisoned.dishonest(100, share=share, seed=3)
  assert who.sum() == count
  np.testing.assert_array_equal(
    who, poisoned.dishonest(100, share=share, seed=3)
  )
  if 0 < count < 100:
    other = poisoned.dishonest(100, share=share, seed=4)
    assert np.any(other != who)


def test_more_of_them_are_the_same_and_others():
  few, many = (poisoned.dishonest(50, share=s, seed=0) for s in (0.1, 0.3))
  assert np.all(many[few])


def test_flip_changes_the_source_label_of_the_dishonest_alone():
  data = _data()
  who = np.array([False, True, True, False])
  found = poisoned.clients(data, who=who, poison=poisoned.flip(1, 3), seed=0)
  np.testing.assert_array_equal(found.examples.x, data.examples.x)
  for index, dishonest in enumerate(who):
    before, after = data.client(index)['y'], found.client(index)['y']
    expected = np.where(before == 1, 3, before) if dishonest else before
    np.testing.assert_array_equal(after, expected)
  assert after.dtype == np.int32


def test_backdoor_triggers_so_many_examples():
  data = _data()
  who = np.array([True, True, False, True])
  poison = poisoned.backdoor(2, share=0.25, value=9.0)
  found = poisoned.clients(data, who=who, poison=poison, seed=0)
  for index, dishonest in enumerate(who):
    before, after = data.client(index), found.client(index)
    changed = np.any(before['x'] != after['x'], axis=1)
    assert changed.sum() == dishonest * len(changed) // 4
    assert np.all(after['x'][changed][:, -4:] == 9.0)
    np.testing.assert_array_equal(
      after['x'][changed][:, :-4], before['x'][changed][:, :-4]
    )
    assert np.all(after['y'][changed] == 2)
    np.testing.assert_array_equal(after['y'][~changed], before['y'][~changed])
  assert data.examples.x.max() <= 1.0  # The honest data was not written to.


def test_trigger_is_a_corner_of_a_picture():
  x = poisoned.triggered(np.zeros((2, 5, 6, 1), np.uint8), 255)
  assert x.sum() == 2 * 9 * 255
  assert np.all(x[:, -3:, -3:] == 255)

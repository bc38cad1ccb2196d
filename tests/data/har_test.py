"""Activity recognition from a tiny file, whole and damaged."""

import numpy as np
import pytest

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data import har

_TASK = config.Task(name='har')
# Recordings: length, exercise, person.
_RECORDINGS = [(1000, 2, 5), (640, 0, 1), (500, 6, 5), (500, 1, 1)]


def _arrays():
  lengths, exercises, people = zip(*_RECORDINGS, strict=True)
  total = sum(lengths)
  # The first channel says where in the file a sample is.
  x = np.zeros((total, 6), np.float32)
  x[:, 0] = np.arange(total)
  return {
    'x': x,
    'start': np.cumsum([0, *lengths], dtype=np.int32),
    'y': np.array(exercises, np.uint8),
    'subject': np.array(people, np.uint8),
    'hz': np.array(50),
  }


def _write(folder, **changes):
  arrays = _arrays() | changes
  np.savez(
    folder / 'har.npz', **{k: v for k, v in arrays.items() if v is not None}
  )


def _load(folder):
  har.prepare(_TASK, data_dir=folder)
  return har.load(_TASK, data_dir=folder)


def test_windows_by_person_and_time(tmp_path):
  _write(tmp_path)
  data = _load(tmp_path)
  # Of 1000 samples, 800 hold 15 windows and 200 hold 3; of 640, 512 and 128;
  # of 500, 400 and 100. Person 1 is the second and last recording.
  assert data.train.client_sizes.tolist() == [9 + 7, 15 + 7]
  assert data.client_test.client_sizes.tolist() == [1 + 1, 3 + 1]
  first = data.train.client(0)
  assert first['x'].shape[1:] == (100, 6) and first['x'].dtype == np.float32
  np.testing.assert_array_equal(first['x'][1, :, 0], 1050 + np.arange(100))
  assert first['y'].tolist() == [0] * 9 + [1] * 7
  held_out = data.client_test.client(1)
  np.testing.assert_array_equal(held_out['x'][0, :, 0], 800 + np.arange(100))
  assert held_out['y'].tolist() == [2] * 3 + [6]


def test_no_sample_is_in_both_parts(tmp_path):
  _write(tmp_path)
  data = _load(tmp_path)
  train, test = (
    set(part.x[..., 0].ravel()) for part in (data.train.examples, data.test)
  )
  assert train and test and not train & test


_GOOD = _arrays()
_INFINITE = _GOOD['x'].copy()
_INFINITE[3, 3] = np.inf


@pytest.mark.parametrize(
  'changes, named',
  [
    ({'subject': None}, 'no array subject'),
    ({'x': _GOOD['x'].astype(np.float64)}, 'x is float64'),
    ({'x': _GOOD['x'][:, :5]}, '(2640, 5) instead of float32 (n, 6)'),
    ({'x': _GOOD['x'][:-1]}, 'does not cut'),
    ({'x': _INFINITE}, 'not finite'),
    ({'start': _GOOD['start'][1:]}, 'do not fit'),
    ({'start': _GOOD['start'][[0, 2, 1, 3, 4]]}, 'does not cut'),
    ({'start': _GOOD['start'] + 1}, 'does not cut'),
    ({'y': _GOOD['y'] + np.uint8(1)}, 'labels from 1 to 7'),
    ({'subject': np.array([{}, 1, 2, 3])}, 'allow_pickle=False'),
  ],
)
def test_other_content(tmp_path, changes, named):
  _write(tmp_path, **changes)
  with pytest.raises(validate.UsageError, match='^--data_dir: ') as caught:
    _load(tmp_path)
  assert named in str(caught.value) and '\n' not in str(caught.value)

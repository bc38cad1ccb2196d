"""Activity recognition from a smartwatch; clients are the people.

Burns et al., "Shoulder physiotherapy exercise recognition: machine learning the
inertial signals from a smartwatch" (arXiv:1802.01489): 10 people, 7 exercises,
each recorded once with either arm. An example is a window of 2 seconds: 100
samples of acceleration (g) and rotation (rad/s), a new one each second.

The last fifth of each recording is held out; a window that reaches over the
border is in neither part. Values stay in their units, close to 1 already:
dividing by a deviation would be one more look at private data.
"""

from collections.abc import Iterator
import pathlib

import numpy as np

from tff_pipeline import config
from tff_pipeline.data import client_data
from tff_pipeline.data import data_set
from tff_pipeline.data import downloads
from tff_pipeline.data import raw_files
from tff_pipeline.data import stand_in

WINDOW = 100
STEP = 50
CHANNELS = 6
NUM_CLASSES = 7
_STAND_IN_PEOPLE = 10
_TRAINING_SHARE = 0.8
FILE = downloads.File(name='har.npz', url=None)


def prepare(task: config.Task, *, data_dir: pathlib.Path) -> None:
  """Finds the file."""
  del task
  downloads.require(FILE, data_dir)


def load(task: config.Task, *, data_dir: pathlib.Path) -> data_set.DataSet:
  """Returns windows: x float32 [n, 100, 6], y int32 [n]."""
  is_stand_in = task.source is config.Source.STAND_IN
  if is_stand_in:
    train, test = stand_in.arrays_by_client(
      (WINDOW, CHANNELS), num_classes=NUM_CLASSES, clients=_STAND_IN_PEOPLE
    )
  else:
    train, test = _read(downloads.require(FILE, data_dir))
  return data_set.DataSet(
    train=train,
    test=test.examples,
    num_classes=NUM_CLASSES,
    client_test=test,
    is_stand_in=is_stand_in,
  )


def _read(path: pathlib.Path) -> stand_in.ByClient:
  arrays = raw_files.read_npz(
    path,
    {
      'x': (np.float32, (None, CHANNELS)),
      'start': (np.int32, (None,)),
      'y': (np.uint8, (None,)),
      'subject': (np.uint8, (None,)),
    },
  )
  with raw_files.complaints(path):
    _check(**arrays)
  return tuple(
    _laid_out(arrays, held_out=held_out) for held_out in (False, True)
  )


def _check(
  x: np.ndarray, start: np.ndarray, y: np.ndarray, subject: np.ndarray
) -> None:
  raw_files.check_labels('it', y, num_classes=NUM_CLASSES)
  if not len(y) or not len(start) - 1 == len(y) == len(subject):
    raise ValueError('start, y and subject do not fit together')
  if start[0] != 0 or start[-1] != len(x) or np.any(np.diff(start) <= 0):
    raise ValueError('start does not cut x into recordings')
  if not np.all(np.isfinite(x)):
    raise ValueError('x has values that are not finite')


def _laid_out(
  arrays: dict[str, np.ndarray], *, held_out: bool
) -> client_data.ClientData:
  xs, ys, sizes = [], [], []
  for person in np.unique(arrays['subject']):
    count = 0
    for recording in np.flatnonzero(arrays['subject'] == person):
      first, last = arrays['start'][recording : recording + 2]
      border = first + int(_TRAINING_SHARE * (last - first))
      span = (border, last) if held_out else (first, border)
      windows = [arrays['x'][t : t + WINDOW] for t in _starts(*span)]
      xs += windows
      ys += [arrays['y'][recording]] * len(windows)
      count += len(windows)
    sizes.append(count)
  examples = client_data.Examples(
    np.array(xs, np.float32).reshape(-1, WINDOW, CHANNELS),
    np.array(ys, np.int32),
  )
  return client_data.ClientData(
    examples, np.cumsum([0, *sizes], dtype=np.int64)
  )


def _starts(first: int, last: int) -> Iterator[int]:
  return iter(range(first, last - WINDOW + 1, STEP))

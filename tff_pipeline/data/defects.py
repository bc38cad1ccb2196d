"""What a data set must not hold, found before anything trains on it.

A NaN in one example makes that client's update NaN: it is rejected, in every
round, and only a column of `metrics.csv` says so. A label out of range is
worse: TensorFlow's loss is NaN for it on one device and an error on another.
"""

from collections.abc import Callable, Iterator
import logging

import numpy as np

from tff_pipeline import validate
from tff_pipeline.data import client_data
from tff_pipeline.data import data_set

_log = logging.getLogger(__name__)

_ROWS_AT_ONCE = 4096  # Bounds the memory of the check, not what is checked.
_ENORMOUS = 100  # Times the median client.
_LABELS = {
  'classification': 'one whole number an example',
  'next_token': 'whole numbers',
  'tags': 'numbers 0 or 1',
  'regression': 'finite numbers',
  'reconstruction': 'bytes',
}


def check(data: data_set.DataSet, *, name: str) -> None:
  """Refuses examples that no model can learn from, and warns of odd clients.

  Args:
    data: The data set, before it is dealt to clients.
    name: The task's name, for the message.

  Raises:
    UsageError: Naming the first bad row, and its client if there are clients.
  """
  parts = {'train': data.train, 'test': data.test}
  if data.client_test is not None:
    parts['client_test'] = data.client_test
  for part, content in parts.items():
    where = _Where(name, part, getattr(content, 'offsets', None))
    examples = getattr(content, 'examples', content)
    # What is read cohort by cohort is checked by its reader.
    if isinstance(examples, client_data.Examples):
      _check_shapes(examples, like=_prototype(data.train), where=where)
      _check_features(examples.x, _num_tokens(data), where)
      _check_labels(examples.y, data, where)
  if not isinstance(data.train, client_data.Examples):
    _warn_of_odd_clients(data.train.client_sizes, name)


def _num_tokens(data: data_set.DataSet) -> int | None:
  """Returns how many token ids there are; a bag's words start at 1."""
  if data.vocabulary_size is None:
    return None
  return data.vocabulary_size + (data.preprocessing == 'bag_of_words')


def _prototype(
  train: client_data.Examples | client_data.Clients,
) -> client_data.Examples:
  return getattr(train, 'prototype', train)


class _Where:
  """Names a row for people."""

  def __init__(self, task: str, part: str, offsets: np.ndarray | None):
    self._place = f'the {part} examples of {task}'
    self._offsets = offsets

  def error(
    self, *, expected: str, found: object, row: int | None = None
  ) -> validate.UsageError:
    """Returns the error about a row, or about all of them."""
    place = self._place
    if row is not None:
      place = f'row {row} of {place}'
      if self._offsets is not None:
        client = int(np.searchsorted(self._offsets, row, side='right')) - 1
        place += f', row {row - self._offsets[client]} of client {client}'
    return validate.error(
      'task.name',
      expected=expected,
      found=f'{found} in {place}',
      remedy='Mend the data, or drop what is wrong in it',
    )


def _check_shapes(
  examples: client_data.Examples, *, like: client_data.Examples, where: _Where
) -> None:
  if not len(examples):
    raise where.error(expected='at least one example', found='none')
  for key in ('x', 'y'):
    values, wanted = getattr(examples, key), getattr(like, key)
    if values.dtype.kind not in 'biuf':
      raise where.error(
        expected=f'numbers as {key}', found=f'the type {values.dtype}'
      )
    kinds = (wanted.shape[1:], wanted.dtype), (values.shape[1:], values.dtype)
    if kinds[0] != kinds[1]:
      raise where.error(
        expected=f'{key} as in training, {wanted.dtype} of shape '
        f'{wanted.shape[1:]}',
        found=f'{values.dtype} of shape {values.shape[1:]}',
      )


def _check_features(
  x: np.ndarray, num_tokens: int | None, where: _Where
) -> None:
  if num_tokens is not None:
    _check_range(x, num_tokens, f'token ids below {num_tokens}', where)
  elif x.dtype.kind == 'f':
    _refuse_first(x, lambda part: ~np.isfinite(part), 'finite features', where)


def _check_labels(y: np.ndarray, data: data_set.DataSet, where: _Where) -> None:
  objective = data.objective
  whole = y.dtype.kind in 'iu'
  fits = {
    'classification': whole and y.ndim == 1,
    'next_token': whole,
    'tags': True,
    'regression': y.dtype.kind == 'f',
    'reconstruction': y.dtype == np.uint8,
  }[objective]
  if not fits:
    raise where.error(
      expected=f'as labels {_LABELS[objective]} ({objective})',
      found=f'{y.dtype} of shape {y.shape[1:]}',
    )
  if objective in ('classification', 'next_token'):
    _check_range(y, data.num_classes, f'labels below {data.num_classes}', where)
  elif objective == 'tags':
    _refuse_first(
      y, lambda part: (part != 0) & (part != 1), 'tags 0 or 1', where
    )
  elif objective == 'regression':
    _refuse_first(y, lambda part: ~np.isfinite(part), 'finite labels', where)


def _check_range(
  values: np.ndarray, limit: int, expected: str, where: _Where
) -> None:
  _refuse_first(
    values,
    lambda part: (part < 0) | (part >= limit) | (part % 1 != 0),
    f'{expected}, and from 0 on',
    where,
  )


def _refuse_first(
  values: np.ndarray,
  bad: Callable[[np.ndarray], np.ndarray],
  expected: str,
  where: _Where,
) -> None:
  for start, part in _parts(values):
    wrong = bad(part)
    if wrong.any():
      first = np.argwhere(wrong)[0]
      raise where.error(
        expected=expected, found=part[tuple(first)], row=start + int(first[0])
      )


def _parts(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
  for start in range(0, len(values), _ROWS_AT_ONCE):
    yield start, values[start : start + _ROWS_AT_ONCE]


def _warn_of_odd_clients(sizes: np.ndarray, name: str) -> None:
  empty = np.flatnonzero(sizes == 0)
  if len(empty):
    _log.warning(
      '%d of the %d clients of %s have no examples (the first is client %d): '
      'they count as clients, and their updates are zero.',
      len(empty),
      len(sizes),
      name,
      empty[0],
    )
  largest = int(np.argmax(sizes))
  if sizes[largest] > _ENORMOUS * max(1, np.median(sizes)):
    _log.warning(
      'Client %d of %s has %d examples, the median client %d: its rounds take '
      'as much longer. --task.max_client_examples keeps the first ones only.',
      largest,
      name,
      sizes[largest],
      int(np.median(sizes)),
    )

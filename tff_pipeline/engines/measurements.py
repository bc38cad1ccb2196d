"""A process's metrics -> columns of `metrics.csv`.

Whatever a round measures on clients without noise says so in its name: it is
not covered by the privacy statement.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

UNNOISED = 'unnoised_'
# What a mechanism releases, what follows from that, and what is public.
_COVERED = ('clip_norm', 'released_update_norm', 'noise_norm')
# Levels of a composed process's metrics that carry no meaning of their own.
_PLUMBING = (
  'client_work',
  'aggregator',
  'distributor',
  'finalizer',
  'dp_query_metrics',
)


def columns(metrics: Any) -> dict[str, float]:
  """Returns the scalars of nested metrics by name.

  >>> columns({'client_work': {'train': {'loss': 2.0}}, 'aggregator': ()})
  {'unnoised_train_loss': 2.0}
  """
  found = {}
  for path, value in _leaves(metrics):
    names = [name for name in path if name not in _PLUMBING]
    name = '_'.join(names)
    covered = names[-1] in _COVERED
    found[name if covered else UNNOISED + name] = float(np.asarray(value))
  return found


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[Any]:
  """Yields (path, scalar) of nested mappings and named tuples."""
  if hasattr(value, '_asdict'):
    value = value._asdict()
  if isinstance(value, Mapping):
    for name, child in value.items():
      yield from _leaves(child, (*path, str(name)))
  elif isinstance(value, list | tuple):
    for index, child in enumerate(value):
      yield from _leaves(child, (*path, str(index)))
  elif np.ndim(value) == 0:
    yield path, value

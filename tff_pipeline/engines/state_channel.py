"""How the states of clients get into a round, and out of it again.

SCAFFOLD's control variates, the residue of error feedback, a personal head:
what a client keeps from one participation to the next. To a process it is data:

  in:   the client's one element has `client_state`, and `client_index`
  out:  the metrics hold, at any depth, `client_states`: the collected rows
        (`aggregation.collecting.collect`) of `client_index` and `client_state`

A process whose element has no `client_state` is stateless, and nothing here
concerns it. In a real deployment a state never leaves its client: it comes back
here only because a simulation has to keep it somewhere. It is not released, and
a process must not let it into the server's state.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
import dataclasses
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.common_libs import structure

from tff_pipeline import validate
from tff_pipeline.aggregation import collecting
from tff_pipeline.client_work import training_loop
from tff_pipeline.data import aligned

Leaves = tuple[np.ndarray, ...]
"""A state, or states as stacked rows: its flat tensors, in TFF's order."""


class Rows(NamedTuple):
  """States of some clients.

  Attributes:
    clients: int64[m], in any order.
    leaves: The states; each leaf has the shape [m, ...].
  """

  clients: np.ndarray
  leaves: Leaves


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Channel:
  """The client states of one process.

  Attributes:
    state_type: Type of a client's state.
    path: Where the collected rows are in the process's metrics.
  """

  state_type: tff.Type
  path: tuple[str, ...]

  @property
  def parts(self) -> tuple[str | None, ...]:
    """Names of what a state is made of; empty if it is one tensor."""
    if not isinstance(self.state_type, tff.StructType):
      return ()
    return tuple(name for name, _ in structure.iter_elements(self.state_type))

  @property
  def specs(self) -> tuple[tf.TensorSpec, ...]:
    """Shape and type of each leaf of one state."""
    return tuple(
      tf.TensorSpec(t.shape, t.dtype)
      for t in collecting.tensor_types(self.state_type)
    )

  def empty(self, size: int) -> Leaves:
    """Returns rows for `size` clients that hold anything."""
    return tuple(
      aligned.empty((size, *spec.shape), spec.dtype.as_numpy_dtype)
      for spec in self.specs
    )

  def zeros(self, size: int) -> Leaves:
    """Returns rows of zeros for `size` clients."""
    rows = self.empty(size)
    for leaf in rows:
      leaf[...] = 0
    return rows

  def packed(self, leaves: Iterable[Any]) -> Any:
    """Returns leaves in mappings and tuples, as the process names them."""
    return collecting.packed(leaves, self.state_type)

  def flat(self, state: Any) -> Leaves:
    """Returns the leaves of one state, copied.

    Raises:
      ValueError: If it does not have the type of a state.
    """
    leaves = collecting.flat(state)
    self.check(leaves, ())
    return tuple(np.array(leaf) for leaf in leaves)

  def check(self, leaves: Sequence[Any], batch: tuple[int, ...]) -> None:
    """Raises `ValueError` unless these are states in this batch shape."""
    wanted = [((*batch, *s.shape), s.dtype.as_numpy_dtype) for s in self.specs]
    found = [(np.shape(leaf), np.asarray(leaf).dtype) for leaf in leaves]
    if found != wanted:
      raise ValueError(f'Expected client states {wanted}, found {found}.')

  def tensors(self, leaves: Leaves | None, size: int) -> tuple[tf.Tensor, ...]:
    """Returns the rows that a round of `size` clients starts with.

    Args:
      leaves: Rows in the order of the cohort, not to be changed while the round
        runs; unset means zeros.
      size: The cohort's size.

    Raises:
      ValueError: If these rows are no states of `size` clients.
    """
    if leaves is None:
      leaves = self.zeros(size)
    self.check(leaves, (size,))
    return tuple(map(aligned.as_tensor, leaves))


def split(channel: Channel | None, metrics: Any) -> tuple[Any, Rows | None]:
  """Returns a round's metrics without collected states, and those states."""
  if channel is None:
    return metrics, None
  metrics, found = _without(metrics, channel.path)
  clients, *leaves = map(np.asarray, collecting.flat(found))
  return metrics, Rows(clients, tuple(leaves))


def find(process: tff.learning.templates.LearningProcess) -> Channel | None:
  """Returns the channel that a process asks for; `None` if it is stateless.

  Raises:
    UsageError: If states go in and do not come back, or come back as others.
  """
  parameters = process.next.type_signature.parameter
  metrics_type = process.next.type_signature.result[1].member
  paths = list(_paths(metrics_type))
  state_type = _state_type(parameters[1].member)
  if state_type is None and not paths:
    return None
  if state_type is None or len(paths) != 1:
    raise _error(
      f'{training_loop.STATE} in the element of a client and '
      f'{collecting.CLIENT_STATES} once in the metrics, or neither',
      f'{"no" if state_type is None else "one"} {training_loop.STATE}, '
      f'{len(paths)} {collecting.CLIENT_STATES}',
    )
  [(path, rows_type)] = paths
  wanted = tff.StructType(
    [(training_loop.INDEX, np.int64), (training_loop.STATE, state_type)]
  )
  if not _are_rows(rows_type, wanted):
    raise _error(f'collected rows of {wanted} in the metrics', str(rows_type))
  for leaf in collecting.tensor_types(state_type):
    if leaf.dtype == tf.string:
      raise _error('states that are numbers', str(state_type))
  return Channel(state_type=state_type, path=path)


def _are_rows(rows_type: tff.Type, member: tff.StructType) -> bool:
  """Returns whether a type is what `collect` makes of values of `member`."""
  names = [name for name, _ in structure.iter_elements(rows_type)]
  rows = [(t.dtype, tuple(t.shape)) for t in structure.flatten(rows_type)]
  wanted = [
    (t.dtype, (None, *t.shape)) for t in collecting.tensor_types(member)
  ]
  return names == [training_loop.INDEX, training_loop.STATE] and rows == wanted


def _error(expected: str, found: str) -> validate.UsageError:
  return validate.error(
    'algorithm.name',
    expected='a learning process with ' + expected,
    found=found,
    remedy='Collect client_index and client_state of every client, see '
    'engines/state_channel.py',
  )


def _state_type(client_type: tff.Type) -> tff.Type | None:
  """Returns the type of the state in a client's element, if it has one."""
  element = getattr(client_type, 'element', None)
  if not isinstance(element, tff.StructType):
    return None
  return dict(
    (name, part) for name, part in structure.iter_elements(element) if name
  ).get(training_loop.STATE)


def _paths(
  metrics_type: tff.Type, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], tff.Type]]:
  """Yields where collected states are in a process's metrics."""
  if not isinstance(metrics_type, tff.StructType):
    return
  for name, part in structure.iter_elements(metrics_type):
    if name == collecting.CLIENT_STATES:
      yield (*path, name), part
    elif name is not None:
      yield from _paths(part, (*path, name))


def _without(metrics: Any, path: tuple[str, ...]) -> tuple[Any, Any]:
  """Returns nested mappings without one entry, and that entry."""
  first, *rest = path
  if hasattr(metrics, '_asdict'):
    metrics = metrics._asdict()
  kept = collections.OrderedDict(metrics)
  found = kept.pop(first)
  if rest:
    kept[first], found = _without(found, tuple(rest))
    kept = collections.OrderedDict((name, kept[name]) for name in metrics)
  return kept, found

"""The collecting aggregator: every client's value, one row each.

  collect({v_1, ..., v_m}) = [v_a, v_b, ...], all m of them in any order

It serves statistics that are no sum (medians, trimmed means), which then run at
the server, and the client states that a simulation keeps between rounds. What
is collected is in the clear: never under a privacy mechanism, and never what a
real server should not see.

Memory is cohort x size of a value. Concatenating row by row takes time
quadratic in the cohort; the in-process engine sees the pattern and gathers the
rows instead (`engines.graphs.Graph.appends`).
"""

import collections
from collections.abc import Iterable
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.common_libs import structure

CLIENT_STATES = 'client_states'
"""Name of collected client states among a process's metrics, at any depth."""


def collect(value: tff.Value) -> tff.Value:
  """Returns the rows of all clients; call it in a federated computation.

  Args:
    value: A tensor or a structure of tensors at the clients, of fully defined
      shapes.

  Returns:
    The same structure at the server; a tensor of shape [...] has become one of
    [m, ...] with a row for each of the m clients, m = 0 included. All leaves
    have the clients in the same order, which is not promised.
  """
  member = value.type_signature.member
  leaves = tensor_types(member)

  @tff.tensorflow.computation(member)
  def flatten(one):
    return tuple(tf.identity(leaf) for leaf in flat(one))

  @tff.tensorflow.computation
  def zero():
    # Plain zeros would have the type of exactly no rows.
    return tuple(
      tf.compat.v1.placeholder_with_default(
        tf.zeros([0, *leaf.shape], leaf.dtype), [None, *leaf.shape]
      )
      for leaf in leaves
    )

  rows_type = zero.type_signature.result

  @tff.tensorflow.computation(rows_type, flatten.type_signature.result)
  def accumulate(rows, one):
    return tuple(
      tf.concat([many, tf.expand_dims(leaf, 0)], axis=0)
      for many, leaf in zip(rows, one, strict=True)
    )

  @tff.tensorflow.computation(rows_type, rows_type)
  def merge(first, second):
    return tuple(
      tf.concat([a, b], axis=0) for a, b in zip(first, second, strict=True)
    )

  @tff.tensorflow.computation(rows_type)
  def report(rows):
    return packed(rows, member)

  return tff.federated_aggregate(
    tff.federated_map(flatten, value), zero(), accumulate, merge, report
  )


def client_states(rows: tff.Value) -> dict[str, tff.Value]:
  """Returns collected states under the name that the engines look for."""
  return {CLIENT_STATES: collect(rows)}


class CollectingFactory(tff.aggregators.UnweightedAggregationFactory):
  """Builds aggregation processes whose result is that of `collect`."""

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """Returns the stateless process for values of this type."""

    @tff.federated_computation
    def initialize():
      return tff.federated_value((), tff.SERVER)

    @tff.federated_computation(
      initialize.type_signature.result,
      tff.FederatedType(value_type, tff.CLIENTS),
    )
    def next_fn(state, value):
      return tff.templates.MeasuredProcessOutput(
        state, collect(value), tff.federated_value((), tff.SERVER)
      )

    return tff.templates.AggregationProcess(initialize, next_fn)


def flat(value: Any) -> list[Any]:
  """Returns the leaves of a tensor or a structure, in TFF's order."""
  return structure.flatten(structure.from_container([value], recursive=True))


def packed(leaves: Iterable[Any], member: tff.Type) -> Any:
  """Returns flat leaves in the mappings and tuples of a type."""
  unused = iter(leaves)

  def pack(part: tff.Type) -> Any:
    if not isinstance(part, tff.StructType):
      return next(unused)
    parts = [(name, pack(p)) for name, p in structure.iter_elements(part)]
    if parts and parts[0][0] is not None:
      return collections.OrderedDict(parts)
    return tuple(value for _, value in parts)

  return pack(member)


def tensor_types(member: tff.Type) -> list[tff.TensorType]:
  """Returns the types of a structure's flat tensors.

  Raises:
    TypeError: If one is not a tensor of fully defined shape.
  """
  leaves = (
    structure.flatten(member)
    if isinstance(member, tff.StructType)
    else [member]
  )
  for leaf in leaves:
    if (
      not isinstance(leaf, tff.TensorType)
      or not tf.TensorShape(leaf.shape).is_fully_defined()
    ):
      raise TypeError(
        f'Expected tensors of fully defined shapes to collect, found {leaf}.'
      )
  return leaves

"""Whole rounds inside TensorFlow: nothing serialised, no worker process.

TFF splits a process's `next` into prepare, work, zero, accumulate, merge,
report and update (`tff.backends.mapreduce.MapReduceForm`), each a TensorFlow
graph. Here they are imported into one function that loops over the cohort:

  context = prepare(state)
  per lane: acc = zero()
            for each client: acc = accumulate(acc, work(data, context))
            (what only collects rows: into an array, stacked at the end)
  state, metrics = update(state, report(merge of the accs))

Secure sums stay explicit in that form: `work` gives their summands apart from
the others. They are added up in the clear here, in `_SecureSums`, and nowhere
else: a masking protocol would replace that class.
"""

from collections.abc import Callable, Sequence
import os
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.common_libs import structure
from tensorflow_federated.python.core.impl.types import type_conversions

from tff_pipeline import validate
from tff_pipeline.engines import engine
from tff_pipeline.engines import feeds
from tff_pipeline.engines import graphs
from tff_pipeline.engines import state_channel

Tensors = list[tf.Tensor]


class InProcess:
  """Runs rounds of a process in this process."""

  def __init__(
    self,
    process: tff.learning.templates.LearningProcess,
    feed: feeds.Feed,
    *,
    lanes: int | None = None,
  ):
    """Compiles the process.

    Args:
      process: Any learning process that TFF can put into MapReduceForm.
      feed: Gives the data of a cohort.
      lanes: Clients trained at the same time; unset means one per core.

    Raises:
      UsageError: If the process has no MapReduceForm.
    """
    self._feed = feed
    self.channel = state_channel.find(process)
    form = _map_reduce_form(process)
    self._initialize = graphs.Graph(
      tff.backends.mapreduce.get_state_initialization_computation(
        process.initialize
      )
    )
    # `process.next` keeps the Python containers that MapReduceForm drops.
    self._state_type = process.initialize.type_signature.result.member
    self._result_types = [
      placed.member for placed in process.next.type_signature.result
    ]
    state_spec = [
      tf.TensorSpec(t.shape, t.dtype)
      for t in structure.flatten(self._state_type)
    ]
    self._round = tf.function(
      _round(form, feed, lanes=lanes or os.cpu_count() or 1),
      input_signature=(state_spec, feed.cohort_spec()),
      autograph=False,
    )

  def __enter__(self) -> 'InProcess':
    return self

  def __exit__(self, *exception: Any) -> None:
    pass

  @property
  def num_traces(self) -> int:
    """How often the round was traced: once, whatever the cohorts."""
    return self._round.experimental_get_tracing_count()

  def initialize(self) -> Any:
    """Returns the initial server state."""
    tensors = tf.function(lambda: self._initialize([]), autograph=False)()
    return _packed(tensors, self._state_type)

  def round(
    self,
    state: Any,
    *,
    round_num: int,
    clients: np.ndarray,
    states: state_channel.Leaves | None = None,
  ) -> engine.Round:
    """Runs one round over a cohort, which may be empty."""
    flat_state = [tf.convert_to_tensor(leaf) for leaf in _flat(state)]
    cohort = self._feed.cohort(round_num=round_num, clients=clients)
    if self.channel is not None:
      rows = self.channel.tensors(states, len(clients))
      cohort = cohort._replace(states=rows)
    tensors = self._round(flat_state, cohort)
    state_type, metrics_type = self._result_types
    num_state = len(structure.flatten(state_type))
    metrics, rows = state_channel.split(
      self.channel, _packed(tensors[num_state:], metrics_type)
    )
    return engine.Round(
      state=_packed(tensors[:num_state], state_type),
      metrics=metrics,
      client_states=rows,
    )


def _map_reduce_form(
  process: tff.learning.templates.LearningProcess,
) -> tff.backends.mapreduce.MapReduceForm:
  options = tf.compat.v1.ConfigProto()
  # By default the graphs are optimized here, which lowers loops to TensorFlow
  # 1 control flow; convolutions in them then fail shape inference.
  options.graph_options.rewrite_options.disable_meta_optimizer = True
  try:
    return tff.backends.mapreduce.get_map_reduce_form_for_computation(
      process.next, options
    )
  except Exception as e:  # TFF raises several types, some of them ValueError.
    reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
    raise validate.error(
      'engine',
      expected='a process that fits one broadcast and one aggregation',
      found=f'one that does not: {reason}',
      remedy='Set --engine=tff_runtime',
    ) from e


def _flat(value: Any) -> list[Any]:
  return structure.flatten(structure.from_container(value, recursive=True))


def _packed(tensors: Sequence[tf.Tensor], type_spec: tff.Type) -> Any:
  """Returns flat tensors as NumPy values in the containers of a TFF type."""
  arrays = [tensor.numpy() for tensor in tensors]
  packed = structure.pack_sequence_as(type_spec, arrays)
  return type_conversions.type_to_py_container(packed, type_spec)


class _SecureSums:
  """The sums that a real deployment would run under a masking protocol.

  Attributes:
    sizes: Number of flat summands of each kind: by bit width, by largest
      input, and modular.
  """

  def __init__(self, form: tff.backends.mapreduce.MapReduceForm):
    kinds = form.work.type_signature.result
    self._types = [structure.flatten(kinds[i]) for i in (1, 2, 3)]
    self._moduli = graphs.Graph(form.secure_modular_sum_modulus)
    self.num = sum(map(len, self._types))

  def zero(self) -> Tensors:
    return [tf.zeros(t.shape, t.dtype) for types in self._types for t in types]

  def report(self, sums: Tensors) -> Tensors:
    """Returns the sums; modular ones reduced."""
    num_modular = len(self._types[2])
    if not num_modular:
      return sums
    plain, modular = sums[:-num_modular], sums[-num_modular:]
    moduli = self._moduli([])
    return plain + [
      tf.math.floormod(total, tf.cast(modulus, total.dtype))
      for total, modulus in zip(modular, moduli, strict=True)
    ]


def _collected(zero: graphs.Graph, accumulate: graphs.Graph) -> dict[int, int]:
  """Returns the appended outputs (`Graph.appends`) that start with no rows."""
  start = tf.function(lambda: zero([]), autograph=False)()
  return {
    to: row for to, row in accumulate.appends.items() if not len(start[to])
  }


def _round(
  form: tff.backends.mapreduce.MapReduceForm,
  feed: feeds.Feed,
  *,
  lanes: int,
) -> Callable[[Tensors, feeds.Cohort], Tensors]:
  """Returns the function from a flat state and a cohort to the flat result."""
  prepare, work, zero, accumulate, merge, report, update = (
    graphs.Graph(getattr(form, name))
    for name in (
      'prepare',
      'work',
      'zero',
      'accumulate',
      'merge',
      'report',
      'update',
    )
  )
  secure = _SecureSums(form)
  client_data = feed.element if work.takes_elements else feed.dataset
  # Appending row by row would copy them all for every client.
  appends = _collected(zero, accumulate)

  def train_lane(context: Tensors, cohort: feeds.Cohort, lane: int) -> Tensors:
    """Trains every `lanes`-th client of the cohort, and sums the results."""

    def add_client(
      index: tf.Tensor, sums: Tensors, rows: list[tf.TensorArray]
    ) -> tuple[Any, Tensors, list[tf.TensorArray]]:
      results = work([client_data(cohort, index), *context])
      num_plain = work.num_outputs - secure.num
      plain = accumulate([*sums[:num_zero], *results[:num_plain]])
      masked = [
        a + b for a, b in zip(sums[num_zero:], results[num_plain:], strict=True)
      ]
      rows = [
        array.write(index // lanes, results[appended - num_zero])
        for array, appended in zip(rows, appends.values(), strict=True)
      ]
      for to in appends:
        plain[to] = sums[to]
      return index + lanes, plain + masked, rows

    start = zero([])
    num_zero = len(start)
    size = tf.maximum(cohort.size - lane + lanes - 1, 0) // lanes
    arrays = [
      tf.TensorArray(start[to].dtype, size, element_shape=start[to].shape[1:])
      for to in appends
    ]
    _, sums, arrays = tf.while_loop(
      lambda index, *_: index < cohort.size,
      add_client,
      (tf.constant(lane), start + secure.zero(), arrays),
      parallel_iterations=1,
    )
    for to, array in zip(appends, arrays, strict=True):
      sums[to] = array.stack()
    return sums

  def run(state: Tensors, cohort: feeds.Cohort) -> Tensors:
    context = prepare(state)
    sums = [train_lane(context, cohort, lane) for lane in range(lanes)]
    total, *others = sums
    num_plain = zero.num_outputs
    for other in others:
      total = merge([*total[:num_plain], *other[:num_plain]]) + [
        a + b for a, b in zip(total[num_plain:], other[num_plain:], strict=True)
      ]
    results = report(total[:num_plain]) + secure.report(total[num_plain:])
    return update([*state, *results])

  return run

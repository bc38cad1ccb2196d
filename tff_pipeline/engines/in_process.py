"""Whole rounds inside TensorFlow: nothing serialised, no worker process.

TFF splits a process's `next` into prepare, work, zero, accumulate, merge,
report and update (`tff.backends.mapreduce.MapReduceForm`), each a TensorFlow
graph. Here they are imported into one function that loops over the cohort:

  context = parts.prepare(state)
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

from tff_pipeline import validate
from tff_pipeline.engines import containers
from tff_pipeline.engines import engine
from tff_pipeline.engines import feeds
from tff_pipeline.engines import graphs
from tff_pipeline.engines import state_channel

Tensors = list[tf.Tensor]


class InProcess:
  """Runs rounds of a process in this process.

  Attributes:
    num_traces: How often the round was traced: once, whatever the cohorts.
  """

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
    state_type = process.initialize.type_signature.result.member
    # `process.next` keeps the Python containers that MapReduceForm drops.
    self._initial, self._state, self._metrics = (
      containers.template(placed.member)
      for placed in (
        process.initialize.type_signature.result,
        *process.next.type_signature.result,
      )
    )
    self._latest: dict[int, tuple[np.ndarray, tf.Tensor]] = {}
    state_spec = [
      tf.TensorSpec(t.shape, t.dtype) for t in structure.flatten(state_type)
    ]
    self.num_traces = 0
    self._round = self._traced(
      _Parts(form),
      spec=(state_spec, feed.cohort_spec()),
      lanes=lanes or os.cpu_count() or 1,
    )

  def _traced(
    self, parts: '_Parts', *, spec: Any, lanes: int
  ) -> Callable[[Tensors, feeds.Cohort], Tensors]:
    """Returns the function of a round, traced for cohorts of any size."""
    # Clients that leave something behind in TensorFlow take turns.
    run = _round(parts, self._feed, lanes=lanes if parts.work.is_pure else 1)

    def counted(state: Tensors, cohort: feeds.Cohort) -> Tensors:
      self.num_traces += 1
      return run(state, cohort)

    if parts.work.is_pure:
      return graphs.concurrent_function(counted, spec)
    function = tf.function(counted, input_signature=spec, autograph=False)
    return function.get_concrete_function()

  def __enter__(self) -> 'InProcess':
    return self

  def __exit__(self, *exception: Any) -> None:
    pass

  def initialize(self) -> Any:
    """Returns the initial server state."""
    return containers.fill(self._initial, _arrays(self._initialize.run()))

  def round(
    self,
    state: Any,
    *,
    round_num: int,
    clients: np.ndarray,
    states: state_channel.Leaves | None = None,
  ) -> engine.Round:
    """Runs one round over a cohort, which may be empty."""
    flat_state = [self._tensor(leaf) for leaf in containers.flatten(state)]
    cohort = self._feed.cohort(round_num=round_num, clients=clients)
    if self.channel is not None:
      rows = self.channel.tensors(states, len(clients))
      cohort = cohort._replace(states=rows)
    tensors = self._round(flat_state, cohort)
    arrays = _arrays(tensors)
    num_state = len(containers.flatten(self._state))
    # Of the state alone: a cohort's client states are not held for long.
    self._latest = {
      id(array): (array, tensor)
      for array, tensor in zip(
        arrays[:num_state], tensors[:num_state], strict=True
      )
    }
    metrics, rows = state_channel.split(
      self.channel, containers.fill(self._metrics, arrays[num_state:])
    )
    return engine.Round(
      state=containers.fill(self._state, arrays[:num_state]),
      metrics=metrics,
      client_states=rows,
    )

  def _tensor(self, leaf: Any) -> tf.Tensor:
    """Returns a leaf as a tensor: the one it came from, if it is the latest."""
    # The arrays are kept as well, so that no other object has their ids.
    _, tensor = self._latest.get(id(leaf), (None, None))
    return tf.convert_to_tensor(leaf) if tensor is None else tensor


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


def _arrays(tensors: Sequence[tf.Tensor]) -> list[np.ndarray]:
  """Returns NumPy values that nobody can change in place."""
  arrays = [np.asarray(tensor.numpy()) for tensor in tensors]
  for array in arrays:
    array.flags.writeable = False
  return arrays


class _Parts:
  """The components of a MapReduceForm, as graphs; see TFF for each."""

  def __init__(self, form: tff.backends.mapreduce.MapReduceForm):
    self.prepare = graphs.Graph(form.prepare)
    self.work = graphs.Graph(form.work)
    self.zero = graphs.Graph(form.zero)
    self.accumulate = graphs.Graph(form.accumulate)
    self.merge = graphs.Graph(form.merge)
    self.report = graphs.Graph(form.report)
    self.update = graphs.Graph(form.update)
    self.secure_sums = _SecureSums(form)


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
  start = zero.run()
  return {
    to: row for to, row in accumulate.appends.items() if not len(start[to])
  }


def _round(
  parts: _Parts, feed: feeds.Feed, *, lanes: int
) -> Callable[[Tensors, feeds.Cohort], Tensors]:
  """Returns the function from a flat state and a cohort to the flat result."""
  work, zero, secure = parts.work, parts.zero, parts.secure_sums
  client_data = feed.element if work.takes_elements else feed.dataset
  # Appending row by row would copy them all for every client.
  appends = _collected(zero, parts.accumulate)

  def train_lane(context: Tensors, cohort: feeds.Cohort, lane: int) -> Tensors:
    """Trains every `lanes`-th client of the cohort, and sums the results."""

    def add_client(
      index: tf.Tensor, sums: Tensors, rows: list[tf.TensorArray]
    ) -> tuple[Any, Tensors, list[tf.TensorArray]]:
      results = work([client_data(cohort, index), *context])
      num_plain = work.num_outputs - secure.num
      plain = parts.accumulate([*sums[:num_zero], *results[:num_plain]])
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
    context = parts.prepare(state)
    sums = [train_lane(context, cohort, lane) for lane in range(lanes)]
    total, *others = sums
    num_plain = zero.num_outputs
    for other in others:
      total = parts.merge([*total[:num_plain], *other[:num_plain]]) + [
        a + b for a, b in zip(total[num_plain:], other[num_plain:], strict=True)
      ]
    results = parts.report(total[:num_plain]) + secure.report(total[num_plain:])
    return parts.update([*state, *results])

  return run

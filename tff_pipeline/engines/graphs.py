"""TFF's TensorFlow computations as graphs that can be called anywhere.

A component of a `MapReduceForm` is a serialised graph with named inputs and
outputs. `Graph` imports it into the graph that is being built, so that a whole
round becomes one TensorFlow function.
"""

from collections.abc import Callable, Sequence
import itertools
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.framework import op_def_registry
import tensorflow_federated as tff

_numbers = itertools.count()

SEQUENCE = 'sequence'
TENSOR = 'tensor'

# Stateful in name only: control flow, and a check without a result.
_HARMLESS = frozenset(
  {'Assert', 'Case', 'For', 'If', 'StatefulPartitionedCall', 'While'}
)


def concurrent_function(
  function: Callable[..., list[tf.Tensor]], spec: Any
) -> Callable[..., list[tf.Tensor]]:
  """Traces a function whose independent parts may run at the same time.

  `tf.function` runs all operations that TensorFlow calls stateful one after
  another, and a loop around an assertion counts as one. So this is right for
  functions of graphs that are `Graph.is_pure` only.

  Args:
    function: Takes arguments like `spec`; returns a flat list of tensors.
    spec: Tensor specs of all arguments.

  Returns:
    A function of the same arguments; traced, once and for all.
  """
  flat_spec = tf.nest.flatten(spec)

  def flat_function(*tensors):
    return function(*tf.nest.pack_sequence_as(spec, tensors))

  traced = tf.compat.v1.wrap_function(flat_function, flat_spec)
  return lambda *args: traced(*tf.nest.flatten(args))


class Graph:
  """A callable import of one TensorFlow computation.

  Attributes:
    input_kinds: TENSOR or SEQUENCE for each flat input.
    num_outputs: Number of flat outputs.
    is_pure: Whether nothing in it outlives a call, such as a variable.
    takes_elements: Whether a sequence is passed as the tensors of its only
      element, because that is all that the graph does with it; otherwise it is
      passed as a `tf.data.Dataset`.
    appends: Output -> input, for each flat output that is nothing but the
      input of the same number with that other input, which belongs to no
      output, as one more row.
  """

  def __init__(self, computation: tff.framework.ConcreteComputation):
    """Unpacks the computation, which must be plain TensorFlow."""
    proto = tff.framework.serialize_computation(computation).tensorflow
    graph_def = tf.compat.v1.GraphDef()
    proto.graph_def.Unpack(graph_def)
    # Functions live in one table for the whole process, by name.
    _rename_functions(graph_def, prefix=f'round_part_{next(_numbers)}_')
    for function in graph_def.library.function:
      context.context().add_function_def(function)
    if proto.initialize_op:
      _run_before_all(graph_def, proto.initialize_op)
    inputs = _flatten(proto.parameter)
    self.input_kinds = [kind for kind, _ in inputs]
    self._inputs = [name for _, name in inputs]
    self._outputs = [name for _, name in _flatten(proto.result)]
    self.num_outputs = len(self._outputs)
    self._graph_def = graph_def
    self.appends = _find_appends(
      graph_def, inputs=self._inputs, outputs=self._outputs
    )
    sequences = [name for kind, name in inputs if kind == SEQUENCE]
    self._element = (
      _cut_out_sequence(graph_def, sequences[0])
      if len(sequences) == 1
      else None
    )
    self.takes_elements = self._element is not None
    self.is_pure = not _stateful_operations(graph_def) - _HARMLESS

  def __call__(self, inputs: Sequence[Any]) -> list[tf.Tensor]:
    """Adds the computation to the current graph.

    Args:
      inputs: A tensor for each tensor input; for a sequence, the structure of
        tensors of its element, or a dataset, as `takes_elements` says.

    Returns:
      The flat outputs.
    """
    input_map = {}
    for kind, name, value in zip(
      self.input_kinds, self._inputs, inputs, strict=True
    ):
      if kind == TENSOR:
        # The identity captures a tensor of an outer graph into this one.
        input_map[name] = tf.identity(value)
      elif self.takes_elements:
        tensors = tf.nest.flatten(value)
        for name, tensor in zip(self._element, tensors, strict=True):
          input_map[name] = tf.identity(tensor)
      else:
        input_map[name] = tf.data.experimental.to_variant(value)
    return tf.import_graph_def(
      self._graph_def, input_map=input_map, return_elements=self._outputs
    )

  def run(self) -> list[tf.Tensor]:
    """Returns the flat outputs of a computation without inputs."""
    # Called directly, functions of one line of code count as one that retraces.
    function = tf.function(lambda: self([]), autograph=False)
    return function.get_concrete_function()()


def _flatten(binding: Any) -> list[tuple[str, str]]:
  """Returns (kind, tensor name) of a binding's leaves, in TFF's order."""
  which = binding.WhichOneof('binding')
  if which is None:
    return []
  if which == 'tensor':
    return [(TENSOR, binding.tensor.tensor_name)]
  if which == 'sequence':
    return [(SEQUENCE, binding.sequence.variant_tensor_name)]
  return [leaf for part in binding.struct.element for leaf in _flatten(part)]


def _stateful_operations(graph_def: tf.compat.v1.GraphDef) -> set[str]:
  """Returns the kinds of stateful operations in a graph and its functions."""
  bodies = [function.node_def for function in graph_def.library.function]
  used = {node.op for nodes in (graph_def.node, *bodies) for node in nodes}
  definitions = filter(None, map(op_def_registry.get, used))
  return {found.name for found in definitions if found.is_stateful}


def _rename_functions(graph_def: tf.compat.v1.GraphDef, *, prefix: str) -> None:
  """Puts a prefix to each library function and to all references to it."""
  ours = {f.signature.name for f in graph_def.library.function}

  def renamed(name: str) -> str:
    return prefix + name if name in ours else name

  def rename_in(attributes: Any) -> None:
    for attribute in attributes.values():
      if attribute.HasField('func'):
        attribute.func.name = renamed(attribute.func.name)
      for function in attribute.list.func:
        function.name = renamed(function.name)

  nodes = list(graph_def.node)
  for function in graph_def.library.function:
    function.signature.name = renamed(function.signature.name)
    rename_in(function.attr)
    nodes.extend(function.node_def)
  for node in nodes:
    node.op = renamed(node.op)
    rename_in(node.attr)
  for gradient in graph_def.library.gradient:
    gradient.function_name = renamed(gradient.function_name)
    gradient.gradient_func = renamed(gradient.gradient_func)


def _run_before_all(graph_def: tf.compat.v1.GraphDef, first: str) -> None:
  """Makes every node that `first` does not need wait for it.

  A computation with variables names an operation that initializes them; TFF's
  executor runs it in a step of its own.
  """
  first = first.split(':')[0].removeprefix('^')
  nodes = {node.name: node for node in graph_def.node}
  needed = set()
  waiting = [first]
  while waiting:
    name = waiting.pop().split(':')[0].removeprefix('^')
    if name not in needed:
      needed.add(name)
      waiting.extend(nodes[name].input)
  for node in graph_def.node:
    if node.name not in needed and node.op != 'Placeholder':
      node.input.append('^' + first)


def _cut_out_sequence(
  graph_def: tf.compat.v1.GraphDef, sequence: str
) -> list[str] | None:
  """Replaces a sequence by the tensors of its only element, if it can be.

  Args:
    graph_def: Changed in place.
    sequence: Name of the sequence's placeholder tensor.

  Returns:
    Names of the placeholder tensors of the element, in the order of
    `tf.nest.flatten`; `None` if the graph does anything else with the
    sequence than taking its only element.
  """
  carriers = {sequence.split(':')[0]}
  users = []
  for node in graph_def.node:  # In topological order, as TensorFlow writes it.
    if not any(source.split(':')[0] in carriers for source in node.input):
      continue
    if node.op == 'Identity':
      carriers.add(node.name)
    else:
      users.append(node)
  if len(users) != 1 or users[0].op != 'DatasetToSingleElement':
    return None
  element = users[0].name
  dtypes = list(users[0].attr['output_types'].list.type)
  kept = [n for n in graph_def.node if n.name not in carriers | {element}]
  for node in kept:
    node.input[:] = [_renamed_output(name, element) for name in node.input]
  copies = [
    tf.compat.v1.NodeDef.FromString(n.SerializeToString()) for n in kept
  ]
  del graph_def.node[:]
  graph_def.node.extend(copies)
  for index, dtype in enumerate(dtypes):
    node = graph_def.node.add(name=f'{element}_{index}', op='Placeholder')
    node.attr['dtype'].type = dtype
    node.attr['shape'].shape.unknown_rank = True
  return [f'{element}_{index}:0' for index in range(len(dtypes))]


def _renamed_output(source: str, node: str) -> str:
  """Returns an input's name, now that each output of `node` is a node."""
  name, _, index = source.partition(':')
  return f'{node}_{index or 0}' if name == node else source


def _find_appends(
  graph_def: tf.compat.v1.GraphDef,
  *,
  inputs: Sequence[str],
  outputs: Sequence[str],
) -> dict[int, int]:
  """Returns `Graph.appends`: what `aggregation.collecting` accumulates."""
  nodes = {node.name: node for node in graph_def.node}
  numbers = {_node_name(name): index for index, name in enumerate(inputs)}

  def source(name: str) -> tf.compat.v1.NodeDef | None:
    node = nodes.get(_node_name(name))
    while node is not None and node.op == 'Identity':
      node = nodes.get(_node_name(node.input[0]))
    return node

  def is_zero(node: tf.compat.v1.NodeDef) -> bool:
    return node.op == 'Const' and not tf.make_ndarray(node.attr['value'].tensor)

  def appended(output: str) -> tuple[int | None, int | None]:
    concat = source(output)
    if concat is None or concat.op != 'ConcatV2' or len(concat.input) != 3:
      return None, None
    many, row, axis = map(source, concat.input)
    if row.op != 'ExpandDims' or not is_zero(axis):
      return None, None
    one, dim = map(source, row.input)
    if not is_zero(dim):
      return None, None
    return numbers.get(many.name), numbers.get(one.name)

  found = {}
  for index, output in enumerate(outputs):
    to, row = appended(output)
    if to == index and row is not None and row >= len(outputs):
      found[index] = row
  return found


def _node_name(tensor: str) -> str:
  return tensor.split(':')[0].removeprefix('^')

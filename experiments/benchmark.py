"""Times a round on each engine, side by side, and prints a table.

  python -m experiments.benchmark --cases=2nn/10,2nn/100,cnn/10

A case is a model and a cohort size. Every client has 100 random images and
trains one epoch in batches of 20. Engines take turns, so that a machine whose
speed drifts does not favour one; the figures are medians.

  stock       TFF's build_unweighted_fed_avg on TFF's runtime
  dense       our client work on TFF's runtime
  in_process  our client work inside TensorFlow
"""

# isort: off
from experiments import cli  # First: it sets TensorFlow's environment.
# isort: on

import collections
from collections.abc import Callable
import csv
import pathlib
import statistics
import time
from typing import Any

from absl import flags

from tff_pipeline import config
from tff_pipeline import validate

_CASES = flags.DEFINE_list(
  'cases', ['2nn/10', '2nn/100', 'cnn/10'], 'model/cohort, comma-separated.'
)
_ROUNDS = flags.DEFINE_integer(
  'rounds', 5, 'Timed rounds of each engine, after one to warm up.', 1
)
_CSV = flags.DEFINE_string('csv', None, 'File for every single timing.')

_EXAMPLES = 100
_BATCH = 20
_SHAPES = {'2nn': (784,), 'cnn': (28, 28, 1)}
_ENGINES = ('stock', 'dense', 'in_process')


def main() -> None:
  """Times the cases of the command line."""
  cases = [_case(text) for text in _CASES.value]
  rows = []
  print(f'{"ms a client":<14}' + ''.join(f'{e:>12}' for e in _ENGINES), end='')
  print(f'{"stock/in_process":>18}{"first round s":>15}')
  for model, cohort in cases:
    timings = _time(model, cohort, rounds=_ROUNDS.value)
    medians = {e: statistics.median(t[1:]) for e, t in timings.items()}
    cells = ''.join(f'{medians[e] / cohort * 1e3:>12.2f}' for e in _ENGINES)
    ratio = medians['stock'] / medians['in_process']
    first = timings['in_process'][0]
    print(f'{model}/{cohort:<10}{cells}{ratio:>17.1f}x{first:>15.2f}')
    rows += [
      (model, cohort, engine, number, seconds)
      for engine, found in timings.items()
      for number, seconds in enumerate(found)
    ]
  if _CSV.value:
    with pathlib.Path(_CSV.value).open('w', newline='') as file:
      writer = csv.writer(file)
      writer.writerow(['model', 'cohort', 'engine', 'round', 'seconds'])
      writer.writerows(rows)


def _case(text: str) -> tuple[str, int]:
  model, _, cohort = text.partition('/')
  validate.check_choice('cases', model, tuple(_SHAPES))
  if not cohort.isdigit() or int(cohort) < 1:
    raise validate.error(
      'cases', expected='model/cohort such as 2nn/10', found=text
    )
  return model, int(cohort)


def _time(model: str, cohort: int, *, rounds: int) -> dict[str, list[float]]:
  """Returns seconds of each round of each engine; the first one warms up."""
  import contextlib

  timings = collections.defaultdict(list)
  with contextlib.ExitStack() as stack:
    runs = {}
    for name, engine in _build(model, cohort).items():
      stack.enter_context(engine)
      runs[name] = _round(engine, cohort)
    for _ in range(rounds + 1):
      for name, run in runs.items():
        started = time.perf_counter()
        run()
        timings[name].append(time.perf_counter() - started)
  return dict(timings)


def _round(engine: Any, cohort: int) -> Callable[[], None]:
  import numpy as np

  state = engine.initialize()
  clients = np.arange(cohort)
  return lambda: engine.round(state, round_num=1, clients=clients)


class _StockDatasets:
  """Plain `tf.data` pipelines, made before the clock starts."""

  def __init__(self, data: Any):
    import tensorflow as tf

    self._datasets = [
      tf.data.Dataset.from_tensor_slices(data.client(client))
      .shuffle(_EXAMPLES)
      .batch(_BATCH)
      for client in range(data.num_clients)
    ]

  def cohort(self, *, round_num: int, clients: Any) -> Any:
    """Returns the client ids."""
    del round_num
    return clients

  def dataset(self, cohort: Any, index: int) -> Any:
    """Returns the pipeline of one client of the cohort."""
    return self._datasets[cohort[index]]


def _build(name: str, cohort: int) -> dict[str, Any]:
  """Returns the engines, all with the same data and model."""
  import numpy as np
  import tensorflow as tf
  import tensorflow_federated as tff

  from tff_pipeline.algorithms import fed_avg
  from tff_pipeline.client_work import protection
  from tff_pipeline.client_work import training_loop
  from tff_pipeline.data import client_data
  from tff_pipeline.engines import engine as engines
  from tff_pipeline.engines import tff_runtime
  from tff_pipeline.models import cnn
  from tff_pipeline.models import functional
  from tff_pipeline.models import two_nn

  shape = _SHAPES[name]
  factory = {'2nn': two_nn.build, 'cnn': cnn.build}[name]
  rng = np.random.default_rng(0)
  count = cohort * _EXAMPLES
  data = client_data.ClientData(
    client_data.Examples(
      rng.normal(size=(count, *shape)).astype(np.float32),
      rng.integers(0, 10, count).astype(np.int32),
    ),
    np.arange(cohort + 1) * _EXAMPLES,
  )
  input_spec = collections.OrderedDict(
    x=tf.TensorSpec((None, *shape), tf.float32),
    y=tf.TensorSpec((None,), tf.int32),
  )
  loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

  def new_model():
    return factory(input_shape=shape, num_classes=10)

  def accuracy():
    return collections.OrderedDict(
      accuracy=tf.keras.metrics.SparseCategoricalAccuracy()
    )

  sgd = tff.learning.optimizers.build_sgdm
  schedule = training_loop.Schedule(
    epochs=1, batch_size=_BATCH, shuffle=config.Shuffle.ON
  )
  stock = tff.learning.algorithms.build_unweighted_fed_avg(
    lambda: tff.learning.models.from_keras_model(
      new_model(),
      loss=loss,
      input_spec=input_spec,
      metrics=list(accuracy().values()),
    ),
    sgd(0.1),
    sgd(1.0),
  )
  dense = fed_avg.build(
    functional.build(
      functional.keras_model(new_model, seed=0),
      loss=loss,
      metric_factory=accuracy,
      input_spec=input_spec,
    ),
    client_optimizer=sgd(0.1),
    server_optimizer=sgd(1.0),
    schedule=schedule,
    protection=protection.UNPROTECTED,
    aggregator=tff.aggregators.UnweightedMeanFactory(),
    weighting=config.Weighting.UNIFORM,
  )

  def build(engine, process):
    return engines.build(
      engine,
      process,
      data=data,
      schedule=schedule,
      seed=0,
      noise_key=(0, 0),
    )

  return {
    'stock': tff_runtime.TffRuntime(stock, _StockDatasets(data)),
    'dense': build(config.EngineName.TFF_RUNTIME, dense),
    'in_process': build(config.EngineName.IN_PROCESS, dense),
  }


if __name__ == '__main__':
  cli.run(main)

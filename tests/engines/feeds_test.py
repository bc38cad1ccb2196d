"""What a cohort's data looks like: limits on it, and what it costs."""

import collections
import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests import small_models
from tff_pipeline import config
from tff_pipeline import sampling
from tff_pipeline.algorithms import fed_avg
from tff_pipeline.client_work import protection
from tff_pipeline.client_work import training_loop
from tff_pipeline.data import aligned
from tff_pipeline.data import client_data
from tff_pipeline.engines import engine as engines
from tff_pipeline.engines import feeds

_SIZES = np.array([4, 0, 9, 1])


def _feed(names, **limits):
  """Returns a feed of clients whose examples are numbered through."""
  offsets = np.concatenate([[0], np.cumsum(_SIZES)])
  numbers = np.arange(offsets[-1], dtype=np.int32)
  return feeds.Feed(
    client_data.ClientData(client_data.Examples(numbers, numbers), offsets),
    element_type=tff.types.tensorflow_to_type(
      collections.OrderedDict(
        (name, tf.TensorSpec([None], tf.int32)) for name in names
      )
    ),
    schedule=training_loop.Schedule(
      epochs=2, batch_size=2, shuffle=config.Shuffle.OFF, **limits
    ),
    seed=0,
    noise_key=(1, 2),
  )


def _data(feed, read):
  """Returns client -> what it reads of its data."""
  cohort = feed.cohort(round_num=1, clients=np.arange(4))
  return {
    int(client): read(feed, cohort, place)
    for place, client in enumerate(cohort.indices)
  }


def _element(feed, cohort, place):
  return feed.element(cohort, place)['x'].numpy().tolist()


def _batches(feed, cohort, place):
  dataset = feed.dataset(cohort, place)
  return [batch['x'].tolist() for batch in dataset.as_numpy_iterator()]


def test_dense_client_has_its_first_examples():
  dense = ('x', 'y', training_loop.KEY)
  assert _data(_feed(dense), _element) == {
    0: [0, 1, 2, 3],
    1: [],
    2: list(range(4, 13)),
    3: [13],
  }
  assert _data(_feed(dense, max_examples=3), _element) == {
    0: [0, 1, 2],
    1: [],
    2: [4, 5, 6],
    3: [13],
  }


def test_batched_client_has_its_first_examples_and_steps():
  limited = _feed(('x', 'y'), max_examples=3, max_steps=3)
  assert _data(limited, _batches) == {
    0: [[0, 1], [2], [0, 1]],
    1: [],
    2: [[4, 5], [6], [4, 5]],
    3: [[13], [13]],
  }
  assert len(_data(_feed(('x', 'y')), _batches)[2]) == 10


def test_largest_clients_come_first_after_the_limit():
  cohort = _feed(('x', 'y'), max_examples=4).cohort(
    round_num=1, clients=np.arange(4)
  )
  assert cohort.indices.numpy().tolist() == [0, 2, 3, 1]
  assert cohort.sizes.numpy().tolist() == [4, 4, 1, 0]


def _seconds_a_round(population):
  """Returns the fastest of many rounds of 100 clients, with all it takes."""
  sizes = 1 + np.arange(population) % 19
  offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
  x = aligned.empty((offsets[-1], 6), np.float32)
  y = aligned.empty((offsets[-1],), np.int32)
  x[...], y[...] = 1, 1
  schedule = training_loop.Schedule(
    epochs=1, batch_size=10, shuffle=config.Shuffle.ON
  )
  process = fed_avg.build(
    small_models.build(small_models.dense),
    client_optimizer=tff.learning.optimizers.build_sgdm(0.1),
    server_optimizer=tff.learning.optimizers.build_sgdm(1.0),
    schedule=schedule,
    protection=protection.UNPROTECTED,
    aggregator=tff.aggregators.MeanFactory(),
    weighting=config.Weighting.UNIFORM,
  )
  engine = engines.build(
    config.EngineName.IN_PROCESS,
    process,
    data=client_data.ClientData(client_data.Examples(x, y), offsets),
    schedule=schedule,
    seed=0,
    noise_key=(1, 2),
  )
  sample = sampling.build(config.fixed_size(100), population=population, seed=0)
  state = engine.initialize()
  seconds = []
  for round_num in range(1, 40):
    started = time.perf_counter()
    engine.round(state, round_num=round_num, clients=sample(round_num))
    seconds.append(time.perf_counter() - started)
  return min(seconds)


@pytest.mark.slow
def test_round_costs_what_its_cohort_does_not_the_population():
  # A thousand times as many clients; anything that walks over them shows.
  assert _seconds_a_round(1_000_000) < 1.5 * _seconds_a_round(1_000)

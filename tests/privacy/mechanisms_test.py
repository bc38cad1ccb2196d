"""Whole mechanisms, executed: the noise that arrives in the model."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.aggregators import differential_privacy

from tests import small_models
from tests import statistics
from tests import terms
from tff_pipeline import config
from tff_pipeline.algorithms import fed_avg
from tff_pipeline.client_work import training_loop
from tff_pipeline.data import client_data
from tff_pipeline.engines import feeds
from tff_pipeline.privacy import bounds
from tff_pipeline.privacy import mechanisms

_KEY = (11, -12)
_POPULATION = 40
_EXPECTED = 5.0
_Z = 2.0
_CLIP = 0.5
_BATCH = 4
_RATE = 0.25
_SIZES = (4, 4, 3, 4, 4, 4)  # One step of each client.
_COHORT = np.array([0, 2, 4])  # Not as many as expected.

_LEAVES = {
  'noise_multiplier': _Z,
  'clip_norm': _CLIP,
  'delta': 1e-3,
  'population': _POPULATION,
}
_ADAPTIVE = {
  'target_quantile': 0.5,
  'clip_learning_rate': 0.2,
  'clipped_count_stddev': 1.5,
}
_FOR_SUM = (_Z**-2 - 3.0**-2) ** -0.5
_M = config.Mechanism


def _privacy(mechanism, **leaves):
  if mechanism is _M.NONE:
    return config.Privacy(mechanism=mechanism)
  extra = _ADAPTIVE if mechanism is _M.GAUSSIAN_ADAPTIVE else {}
  return config.Privacy(mechanism=mechanism, **(_LEAVES | extra | leaves))


@dataclasses.dataclass(frozen=True)
class _Run:
  """Trains small cohorts under one mechanism."""

  process: tff.learning.templates.LearningProcess
  feed: feeds.Feed

  def start(self):
    return self.process.initialize()

  def round(self, state, *, round_num=1, clients=_COHORT):
    cohort = self.feed.cohort(round_num=round_num, clients=clients)
    data = [self.feed.dataset(cohort, i) for i in range(len(clients))]
    return self.process.next(state, data)


def _data(model, scale=1.0, bad=None):
  parts = [
    small_models.examples(model, size, seed=i) for i, size in enumerate(_SIZES)
  ]
  x = np.concatenate([x for x, _ in parts]) * np.float32(scale)
  offsets = np.concatenate([[0], np.cumsum(_SIZES)]).astype(np.int64)
  if bad is not None:
    x[offsets[bad]] = np.nan
  y = np.concatenate([y for _, y in parts])
  return client_data.ClientData(client_data.Examples(x, y), offsets)


_SCHEDULE = training_loop.Schedule(
  epochs=1, batch_size=_BATCH, shuffle=config.Shuffle.ON
)


def _process(model, privacy):
  return fed_avg.build(
    model,
    client_optimizer=tff.learning.optimizers.build_sgdm(_RATE),
    server_optimizer=tff.learning.optimizers.build_sgdm(1.0),
    schedule=_SCHEDULE,
    protection=mechanisms.protection(privacy),
    aggregator=mechanisms.aggregator(
      privacy, expected_cohort=_EXPECTED, noise_key=_KEY
    ),
    weighting=config.Weighting.UNIFORM,
  )


def _weights(state):
  return [np.asarray(w) for w in state.global_model_weights.trainable]


def _noise(noised, exact):
  return [
    a.astype(np.float64) - b
    for a, b in zip(_weights(noised), _weights(exact), strict=True)
  ]


@pytest.fixture(scope='module')
def runs():
  """(mechanism, data, keys, leaves) -> the run; each process is built once."""
  model = small_models.build(small_models.wide)
  built = {}

  def get(mechanism, *, data=None, seed=0, key=_KEY, **leaves):
    name = (mechanism, *sorted(leaves.items()))
    if name not in built:
      built[name] = _process(model, _privacy(mechanism, **leaves))
    feed = feeds.for_process(
      built[name],
      _data(model, **(data or {})),
      schedule=_SCHEDULE,
      seed=seed,
      noise_key=key,
    )
    return _Run(built[name], feed)

  return get


_STDDEV = {
  _M.GAUSSIAN: _Z * _CLIP / _EXPECTED,
  _M.GAUSSIAN_ADAPTIVE: _FOR_SUM * _CLIP / _EXPECTED,
  _M.LOCAL: _Z * _CLIP * np.sqrt(len(_COHORT)) / _EXPECTED,
  _M.DP_SGD: _RATE * _Z * _CLIP / _BATCH / np.sqrt(len(_COHORT)),
}


@pytest.mark.parametrize('mechanism', _STDDEV)
def test_noise_on_the_mean_update(mechanism, runs, on_tff_runtime):
  """Of one round with noise and one without, from the same state."""
  noised, exact = runs(mechanism), runs(mechanism, noise_multiplier=0.0)
  start = noised.start()
  first = noised.round(start)
  noise = _noise(first.state, exact.round(exact.start()).state)
  statistics.assert_stddev(noise, _STDDEV[mechanism])
  # The same round again, as after a crash; then another round.
  replayed = noised.round(start)
  for one, other in zip(
    _weights(first.state), _weights(replayed.state), strict=True
  ):
    np.testing.assert_array_equal(one, other)
  second = noised.round(first.state, round_num=2)
  without = exact.round(
    exact.start()._replace(
      global_model_weights=first.state.global_model_weights
    ),
    round_num=2,
  )
  kernels = [noise[0], _noise(second.state, without.state)[0]]
  statistics.assert_unrelated(kernels)


@pytest.mark.parametrize('mechanism', [_M.GAUSSIAN, _M.GAUSSIAN_ADAPTIVE])
def test_noise_of_a_larger_cohort(mechanism, runs, on_tff_runtime):
  """What is added to the mean is the noise of a cohort of 20."""
  extrapolated = runs(mechanism, noise_cohort_size=20)
  exact = runs(mechanism, noise_multiplier=0.0)
  noise = _noise(
    extrapolated.round(extrapolated.start()).state,
    exact.round(exact.start()).state,
  )
  statistics.assert_stddev(noise, _STDDEV[mechanism] * _EXPECTED / 20)


def test_clients_and_rounds_do_not_share_noise(runs, on_tff_runtime):
  """Local noise, seen through cohorts of one client."""
  noised = runs(_M.LOCAL)
  exact = runs(_M.LOCAL, noise_multiplier=0.0)
  kernels = []
  for round_num in (1, 2):
    for client in (0, 1):
      states = [
        run.round(
          run.start(), round_num=round_num, clients=np.array([client])
        ).state
        for run in (noised, exact)
      ]
      kernels.append(_noise(*states)[0])
  statistics.assert_unrelated(kernels)


@pytest.mark.parametrize('mechanism', [_M.LOCAL, _M.DP_SGD])
def test_seed_of_the_run_does_not_decide_noise(mechanism, runs, on_tff_runtime):
  """It is in the config, for everybody to read; with features of zero."""
  found = []
  for seed, key in ((0, _KEY), (1, _KEY), (0, (11, -13))):
    run = runs(mechanism, seed=seed, key=key, data={'scale': 0.0})
    tf.random.set_seed(seed)
    start = run.start()
    found.append(_noise(run.round(start).state, start)[0])
  np.testing.assert_allclose(found[0], found[1], atol=1e-7)
  statistics.assert_unrelated([found[0], found[2]])


@pytest.mark.parametrize('mechanism', _M)
def test_empty_cohort(mechanism, runs, on_tff_runtime):
  run = runs(mechanism)
  start = run.start()
  output = run.round(start, clients=np.array([], np.int64))
  moved = _noise(output.state, start)
  if mechanism in (_M.GAUSSIAN, _M.GAUSSIAN_ADAPTIVE):
    statistics.assert_stddev(moved, _STDDEV[mechanism])
  else:
    assert not any(np.any(part) for part in moved)


@pytest.mark.parametrize('mechanism', [_M.NONE, _M.DP_SGD, _M.LOCAL])
def test_mean_of_nobody_is_zero(mechanism, on_tff_runtime):
  """Although TFF's server step would reject an undefined one by itself."""
  factory = mechanisms.aggregator(
    _privacy(mechanism), expected_cohort=_EXPECTED, noise_key=_KEY
  )
  if isinstance(factory, tff.aggregators.UnweightedAggregationFactory):
    factory = tff.aggregators.as_weighted_aggregator(factory)
  number = tff.types.tensorflow_to_type(tf.float32)
  process = factory.create(number, number)
  assert process.next(process.initialize(), [], []).result == 0.0


_NO_NOISE = {
  _M.NONE: {},
  **dict.fromkeys(
    (_M.GAUSSIAN, _M.GAUSSIAN_ADAPTIVE, _M.LOCAL),
    {'noise_multiplier': 0.0},
  ),
}


@pytest.mark.parametrize('mechanism', _NO_NOISE)
def test_client_with_undefined_data_harms_nobody(
  mechanism, runs, on_tff_runtime
):
  good = runs(mechanism, **_NO_NOISE[mechanism])
  bad = runs(mechanism, data={'bad': 2}, **_NO_NOISE[mechanism])
  output = bad.round(bad.start())
  expected = good.round(good.start(), clients=np.array([0, 4]))
  for one, other in zip(
    _weights(output.state), _weights(expected.state), strict=True
  ):
    np.testing.assert_allclose(one, other, atol=1e-6)
  train = output.metrics['client_work']['train']
  assert train['rejected_updates'] == 1
  assert train['num_examples'] == 8


def test_update_never_exceeds_the_clip_norm_over_the_cohort(
  runs, on_tff_runtime
):
  """Larger features make larger updates."""
  for scale in (1.0, 100.0):
    run = runs(_M.GAUSSIAN, data={'scale': scale}, noise_multiplier=0.0)
    start = run.start()
    output = run.round(start, clients=np.array([3]))
    moved = _noise(output.state, start)
    norm = np.sqrt(sum(np.sum(part**2) for part in moved))
    assert norm == pytest.approx(_CLIP / _EXPECTED, rel=1e-4)
    assert output.metrics['aggregator']['clipped_share'] == 1.0


@pytest.mark.parametrize(
  'mechanism', [_M.GAUSSIAN, _M.GAUSSIAN_ADAPTIVE, _M.LOCAL]
)
def test_each_layer_of_an_update_may_be_clipped_by_itself(
  mechanism, runs, on_tff_runtime
):
  def update(**leaves):
    run = runs(mechanism, noise_multiplier=0.0, **leaves)
    start = run.start()
    output = run.round(start, clients=np.array([3]))
    return [_EXPECTED * part for part in _noise(output.state, start)]

  whole = update(clip_norm=1e6)
  norms = [float(np.linalg.norm(part)) for part in whole]
  share = 1.5 * min(norms)
  clipped = update(
    clip_norm=share * len(norms) ** 0.5, clipping=config.Clipping.PER_LAYER
  )
  factors = [min(1.0, share / norm) for norm in norms]
  assert 1.0 in factors and min(factors) < 0.9
  for one, other, factor in zip(clipped, whole, factors, strict=True):
    np.testing.assert_allclose(one, factor * other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('mechanism', [_M.GAUSSIAN, _M.GAUSSIAN_ADAPTIVE])
def test_event_of_the_aggregator_is_the_declared_one(
  mechanism, runs, on_tff_runtime
):
  run = runs(mechanism)
  state = run.round(run.start()).state
  event = differential_privacy.extract_dp_event_from_state(state.aggregator)
  built = mechanisms.build(
    terms.make(_privacy(mechanism), config.poisson(int(_EXPECTED))),
    population=_POPULATION,
    noise_key=_KEY,
  )
  declared = bounds.combined_noise_multiplier(built.guarantee.releases)
  assert event.noise_multiplier == pytest.approx(declared)
  assert declared == pytest.approx(_Z)


def test_event_of_an_extrapolated_run_is_that_of_its_own_noise(
  runs, on_tff_runtime
):
  run = runs(_M.GAUSSIAN, noise_cohort_size=20)
  state = run.round(run.start()).state
  event = differential_privacy.extract_dp_event_from_state(state.aggregator)
  assert event.noise_multiplier == pytest.approx(_Z * _EXPECTED / 20)


_BOTH_LEVELS = {'example_noise_multiplier': 3.0, 'example_clip_norm': 0.1}


@pytest.mark.parametrize('mechanism', [_M.GAUSSIAN, _M.LOCAL])
def test_example_level_noise_beneath_a_user_level_mechanism(
  mechanism, runs, on_tff_runtime
):
  """With a clip norm that clips no update, and no noise of the user level."""
  wide = {'noise_multiplier': 0.0, 'clip_norm': 1e6}
  noised = runs(mechanism, **wide, **_BOTH_LEVELS)
  exact = runs(
    mechanism, **wide, **(_BOTH_LEVELS | {'example_noise_multiplier': 0.0})
  )
  output = noised.round(noised.start())
  noise = _noise(output.state, exact.round(exact.start()).state)
  stddev = _RATE * 3.0 * 0.1 / _BATCH * np.sqrt(len(_COHORT)) / _EXPECTED
  statistics.assert_stddev(noise, stddev)
  assert output.metrics['client_work']['train']['clipped_examples'] > 0


@pytest.mark.parametrize('mechanism', _M)
def test_element_asks_for_a_noise_key_only_where_clients_add_noise(mechanism):
  noisy = mechanism in (_M.LOCAL, _M.DP_SGD)
  extra = mechanisms.protection(_privacy(mechanism)).extra_spec
  assert (training_loop.NOISE_KEY in extra) == noisy

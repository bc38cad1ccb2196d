"""Clients that get through fewer epochs, and rounds that leave them out."""

import dataclasses

import numpy as np
import pytest

from tests import small_models
from tests.algorithms import cohorts
from tff_pipeline import config
from tff_pipeline import sampling
from tff_pipeline import validate
from tff_pipeline.experiment import building
from tff_pipeline.privacy import accounting
from tff_pipeline.privacy import guarantees

EPOCHS = 4
_WHOLE = dataclasses.replace(cohorts.CLIENT, epochs=EPOCHS)
_PARTIAL = dataclasses.replace(
  _WHOLE, stragglers='partial', straggler_share=0.5
)
COHORT = [0, 2, 3, 5]
SEED = 3  # Of `cohorts.run`.


def _run(client, cohort, algorithm=None, **others):
  algorithm = algorithm or config.Algorithm()
  process = cohorts.build(algorithm, client=client, factory=cohorts.linear)
  return cohorts.run(process, client=client, cohorts=[cohort], **others)[0][0]


@pytest.mark.parametrize('weighting', list(config.Weighting))
@pytest.mark.parametrize('strength', [0.0, 0.7])
def test_each_client_takes_its_own_number_of_epochs(weighting, strength):
  """A straggler weighs as much as if it had got through all of them."""
  algorithm = config.Algorithm(
    name='fed_prox', proximal_strength=strength, weighting=weighting
  )
  done = sampling.epochs_done(
    SEED, 1, np.array(COHORT), share=0.5, epochs=EPOCHS
  )
  assert 1 <= done.min() < done.max() == EPOCHS
  start = small_models.build(cohorts.linear).initial_weights[0]
  trained = [
    cohorts.numpy_steps(
      start,
      x,
      y,
      client=dataclasses.replace(_WHOLE, epochs=int(epochs)),
      drift=lambda w, s: strength * (w - s),
    )
    for (x, y), epochs in zip(
      cohorts.numpy_clients(cohorts.data(), COHORT), done, strict=True
    )
  ]
  by_examples = weighting is config.Weighting.NUM_EXAMPLES
  weights = [cohorts.SIZES[k] if by_examples else 1 for k in COHORT]
  for index, found in enumerate(_run(_PARTIAL, COHORT, algorithm)):
    expected = np.average([w[index] for w in trained], axis=0, weights=weights)
    np.testing.assert_allclose(found, expected, atol=2e-6, rtol=0)


def test_no_share_is_no_stragglers():
  none = dataclasses.replace(_PARTIAL, straggler_share=0.0)
  for ours, theirs in zip(
    _run(none, COHORT), _run(_WHOLE, COHORT), strict=True
  ):
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_tffs_runtime_agrees():
  theirs = _run(_PARTIAL, COHORT, engine=config.EngineName.TFF_RUNTIME)
  for ours, other in zip(_run(_PARTIAL, COHORT), theirs, strict=True):
    np.testing.assert_allclose(ours, other, atol=1e-6, rtol=0)


def _experiment(**changes):
  whole = config.Experiment(
    task=config.Task(
      name='digits', model='softmax_regression', partition='iid', clients=30
    ),
    cohort=config.fixed_size(10),
    client=config.Client(
      epochs=2,
      batch_size=10,
      learning_rate=0.1,
      stragglers='drop',
      straggler_share=0.9,
    ),
    server=config.Server(learning_rate=1.0),
    privacy=config.no_privacy(),
    rounds=2,
  )
  return dataclasses.replace(whole, **changes)


def test_who_is_dropped_is_in_no_cohort():
  parts = building.build(_experiment(), noise_key=(1, 2))
  assert [len(parts.sampler(r)) for r in (1, 2, 3)] == [1, 1, 1]


def _client(**changes):
  return {'client': dataclasses.replace(_experiment().client, **changes)}


@pytest.mark.parametrize(
  'changes, message',
  [
    (
      {
        'privacy': config.gaussian(
          noise_multiplier=1.0, clip_norm=1.0, delta=1e-3, population=30
        )
      },
      'which no price here covers',
    ),
    (
      {'algorithm': config.Algorithm(name='q_fed_avg', fairness=1.0)},
      'They are simulated with fed_avg and fed_prox',
    ),
    (_client(stragglers='partial', epochs=1), '--client.epochs: expected at'),
  ],
)
def test_where_they_make_no_sense_they_are_refused(changes, message):
  with pytest.raises(validate.UsageError, match=message):
    _experiment(**changes)


def test_a_share_needs_a_policy_and_the_other_way_round():
  with pytest.raises(validate.UsageError, match='--client.straggler_share'):
    config.Client(batch_size=1, straggler_share=0.5)
  with pytest.raises(validate.UsageError, match='--client.straggler_share'):
    config.Client(batch_size=1, stragglers='drop')


@pytest.mark.parametrize('policy', ['drop', 'partial'])
def test_noise_on_each_step_prices_them_as_if_none_was_slow(policy):
  """Who is slow follows seed and round; an example is in no more steps."""
  noised = _experiment(
    privacy=config.Privacy(
      mechanism='dp_sgd',
      noise_multiplier=1.0,
      clip_norm=1.0,
      delta=1e-3,
      population=30,
    ),
    **_client(stragglers=policy),
  )
  usual = dataclasses.replace(
    noised, client=config.Client(epochs=2, batch_size=10, learning_rate=0.1)
  )
  parts = building.build(noised, noise_key=(1, 2))
  assert accounting.headline(
    parts.guarantee, 2, delta=1e-3
  ) == accounting.headline(guarantees.build(config.terms(usual)), 2, delta=1e-3)
  with parts.engine as engine:
    done = engine.round(
      engine.initialize(), round_num=1, clients=parts.sampler(1)
    )
  trained = done.metrics['client_work']['train']['num_batches']
  slow = 10 * 2 * 5  # Everybody through all epochs, of five batches.
  assert 0 < trained < slow

import math

import numpy as np
import pytest
from scipy import stats

from tests import synthetic_runs
from tff_pipeline import config
from tff_pipeline.report import comparison
from tff_pipeline.report import reading

METRIC = 'test_accuracy'


def _runs(tmp_path, finals, **options):
  """Writes finals[(noise, seed)] = accuracy; returns the runs."""
  for (noise, seed), accuracy in finals.items():
    wanted = synthetic_runs.build(
      seed=seed, privacy=synthetic_runs.privacy(noise)
    )
    synthetic_runs.write(
      tmp_path / f'{noise}/seed={seed}', wanted, accuracy=accuracy, **options
    )
  return reading.collect([tmp_path]).runs


def _arms(tmp_path, finals):
  return comparison.arms(_runs(tmp_path, finals))


PAIRED = {
  (0.5, 0): 0.90,
  (0.5, 1): 0.70,
  (0.5, 2): 0.80,
  (10.0, 0): 0.84,
  (10.0, 1): 0.66,
  (10.0, 2): 0.75,
}


def test_runs_that_differ_in_seed_alone_are_one_arm(tmp_path):
  arms = _arms(tmp_path, PAIRED)
  assert [arm.label for arm in arms] == [
    'noise multiplier 0.5',
    'noise multiplier 10',
  ]
  assert [len(arm.runs) for arm in arms] == [3, 3]
  assert arms[0].by_seed(METRIC).to_dict() == pytest.approx(
    {0: 0.9, 1: 0.7, 2: 0.8}
  )


def test_interval_is_students_t():
  values = [0.8, 0.9, 0.7, 0.85]
  found = comparison.interval(values)
  low, high = stats.t.interval(
    0.95, 3, loc=np.mean(values), scale=stats.sem(values)
  )
  assert (found.low, found.high) == pytest.approx((low, high))


@pytest.mark.parametrize('values, mean', [([], math.nan), ([0.5], 0.5)])
def test_one_value_has_no_interval(values, mean):
  found = comparison.interval(values)
  assert found.mean == pytest.approx(mean, nan_ok=True)
  assert math.isnan(found.half_width)


def test_interval_covers_the_mean_as_often_as_it_says():
  rng = np.random.default_rng(0)
  hits = 0
  for _ in range(2000):
    found = comparison.interval(rng.normal(1.0, 2.0, size=4))
    hits += found.low <= 1.0 <= found.high
  assert hits / 2000 == pytest.approx(0.95, abs=0.015)


def test_differences_are_within_pairs(tmp_path):
  low_noise, high_noise = _arms(tmp_path, PAIRED)
  assert comparison.reference([high_noise, low_noise]) is low_noise
  found = comparison.differences(high_noise, low_noise, metric=METRIC)
  assert found.to_dict() == pytest.approx({0: -0.06, 1: -0.04, 2: -0.05})
  # What the seeds have in common cancels: 20 times narrower than unpaired.
  paired = comparison.interval(found).half_width
  assert paired < high_noise.final(METRIC).half_width / 5


def test_seeds_without_a_partner_are_not_compared(tmp_path):
  finals = {k: v for k, v in PAIRED.items() if k != (10.0, 1)}
  low_noise, high_noise = _arms(tmp_path, finals)
  found = comparison.differences(high_noise, low_noise, metric=METRIC)
  assert list(found.index) == [0, 2]


def test_repetitions_of_a_seed_are_one_value(tmp_path):
  for i, accuracy in enumerate((0.6, 0.8)):
    wanted = synthetic_runs.build(privacy=synthetic_runs.privacy(noise_seed=i))
    synthetic_runs.write(tmp_path / f'{i}', wanted, accuracy=accuracy)
  (arm,) = comparison.arms(reading.collect([tmp_path]).runs)
  assert arm.by_seed(METRIC).to_dict() == pytest.approx({0: 0.7})
  assert math.isnan(arm.final(METRIC).half_width)


def test_pairs_share_what_their_configs_say(tmp_path):
  one, other = _arms(tmp_path, {(0.5, 0): 0.9, (10.0, 0): 0.8})
  everything = ('partition', 'initial weights', 'cohorts', 'shuffles')
  assert comparison.shared(one, other) == everything


@pytest.mark.parametrize(
  'changes, lost',
  [
    ({'client': config.Client(batch_size=5, learning_rate=0.2)}, 'shuffles'),
    ({'cohort': config.poisson(7)}, 'cohorts'),
    (
      {
        'task': config.Task(
          name='digits', model='mlp', partition='iid', clients=60
        )
      },
      'initial weights',
    ),
    (
      {
        'task': config.Task(
          name='digits', partition='dirichlet', clients=60, concentration=1.0
        )
      },
      'partition',
    ),
  ],
)
def test_pairs_do_not_share_what_was_changed(tmp_path, changes, lost):
  synthetic_runs.write(tmp_path / 'a', synthetic_runs.build())
  synthetic_runs.write(tmp_path / 'b', synthetic_runs.build(**changes))
  one, other = comparison.arms(reading.collect([tmp_path]).runs)
  shared = comparison.shared(one, other)
  assert lost not in shared and len(shared) == 3


def test_cohorts_are_believed_by_their_recorded_sizes(tmp_path):
  other = synthetic_runs.build(privacy=synthetic_runs.privacy(2.0))
  synthetic_runs.write(tmp_path / 'a', synthetic_runs.build(), sizes=6)
  synthetic_runs.write(tmp_path / 'b', other, sizes=5)
  arms = comparison.arms(reading.collect([tmp_path]).runs)
  assert 'cohorts' not in comparison.shared(*arms)


def test_no_mechanism_shares_cohorts_with_a_mechanism(tmp_path):
  without = synthetic_runs.build(privacy=config.no_privacy())
  synthetic_runs.write(tmp_path / 'a', synthetic_runs.build())
  synthetic_runs.write(tmp_path / 'b', without)
  arms = comparison.arms(reading.collect([tmp_path]).runs)
  assert 'cohorts' in comparison.shared(*arms)


def test_target_is_reached_in_the_first_evaluated_round(tmp_path):
  low_noise, high_noise = _arms(
    tmp_path, {(0.5, 0): 0.9, (0.5, 1): 0.6, (10.0, 0): 0.3}
  )
  found = comparison.reached(low_noise, metric=METRIC, target=0.6)
  # Accuracy grows by a sixth of the final value a round: rounds 4 and 6.
  assert found.runs == (2, 2) and found.rounds == 5.0
  assert found.epsilon == low_noise.epsilon  # The later one's.
  never = comparison.reached(high_noise, metric=METRIC, target=0.6)
  assert never.runs == (0, 1)
  assert math.isnan(never.rounds) and math.isnan(never.epsilon)


def test_target_of_a_loss_is_reached_from_above(tmp_path):
  (arm,) = _arms(tmp_path, {(0.5, 0): 0.9})
  found = comparison.reached(arm, metric='test_loss', target=0.25)
  assert found.rounds == 4.0


def test_promises_tell_relations_apart(tmp_path):
  zeroed = synthetic_runs.build(
    privacy=synthetic_runs.privacy(relation='zero_out')
  )
  delta = synthetic_runs.build(privacy=synthetic_runs.privacy(delta=1e-4))
  larger = synthetic_runs.build(
    privacy=synthetic_runs.privacy(
      population=6000, noise_cohort_size=600, delta=1e-5
    )
  )
  for i, wanted in enumerate((synthetic_runs.build(), zeroed, delta, larger)):
    synthetic_runs.write(tmp_path / f'{i}', wanted)
  arms = comparison.arms(reading.collect([tmp_path]).runs)
  assert len({arm.promise for arm in arms}) == 4
  labels = [arm.promise.label for arm in arms]
  assert sum('extrapolated' in label for label in labels) == 1
  assert sum('zero out' in label for label in labels) == 1


def test_what_a_choice_implies_is_not_in_the_label(tmp_path):
  wanted = [
    synthetic_runs.build(privacy=privacy)
    for privacy in (
      config.no_privacy(),
      synthetic_runs.privacy(1.0),
      synthetic_runs.privacy(2.0),
    )
  ]
  for i, experiment in enumerate(wanted):
    synthetic_runs.write(tmp_path / f'{i}', experiment)
  arms = comparison.arms(reading.collect([tmp_path]).runs)
  assert [arm.label for arm in arms] == [
    'mechanism gaussian, noise multiplier 1',
    'mechanism gaussian, noise multiplier 2',
    'mechanism none',
  ]

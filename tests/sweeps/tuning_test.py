import math

import pytest

from tff_pipeline import validate
from tff_pipeline.sweeps import tuning

NOISE = 'privacy.noise_multiplier'


@pytest.mark.parametrize(
  'leaf, text, expected',
  [
    (NOISE, '0.5..2', tuning.Range(low=0.5, high=2.0, whole=False, log=False)),
    (NOISE, '1..2:log', tuning.Range(low=1.0, high=2.0, whole=False, log=True)),
    ('rounds', '1..50', tuning.Range(low=1, high=50, whole=True, log=False)),
    ('client.optimizer', 'sgd,adam', ('sgd', 'adam')),
    (NOISE, '1,2', (1.0, 2.0)),
    ('task.model', 'mlp', ('mlp',)),
  ],
)
def test_space(leaf, text, expected):
  assert tuning.parse(leaf, text) == expected


@pytest.mark.parametrize(
  'leaf, text',
  [
    (NOISE, '2..1'),
    (NOISE, '1..'),
    (NOISE, '1..2..3'),
    (NOISE, '0..2:log'),
    (NOISE, '1..2:logarithm'),
    (NOISE, 'a,b'),
    (NOISE, '-1..2'),
    ('rounds', '0.5..2'),
    ('client.optimizer', 'sgd..adam'),
    ('client.optimizer', 'smg'),
  ],
)
def test_bad_space_is_refused(leaf, text):
  with pytest.raises(validate.UsageError, match=f'--tune.{leaf}: expected'):
    tuning.parse(leaf, text)


def test_repetitions_are_tried_once():
  points = [{'a': 1}, {'a': 2}, {'a': 1}]
  assert tuning.unique(points) == [{'a': 1}, {'a': 2}]


def test_optuna_that_is_missing_is_named(monkeypatch):
  monkeypatch.setitem(__import__('sys').modules, 'optuna', None)
  with pytest.raises(validate.UsageError, match='expected Optuna'):
    tuning.Study({}, maximize=True, seed=0)


def _search(number, *, seed=1, side_by_side=2, fail=False):
  """Minimizes (log clip)^2 + (epochs - 3)^2; returns points and results."""
  space = {
    'privacy.clip_norm': tuning.parse('privacy.clip_norm', '0.1..10:log'),
    'client.epochs': tuning.parse('client.epochs', '1..5'),
  }
  told = []
  while len(told) < number:
    study = tuning.Study(space, maximize=False, seed=seed)
    for point, result in told:
      study.tell(point, result)
    for point in study.ask(side_by_side):
      clip, epochs = point['privacy.clip_norm'], point['client.epochs']
      result = math.log(clip) ** 2 + (epochs - 3) ** 2
      failed = fail and epochs == 3
      told.append((point, math.nan if failed else result))
  return told


@pytest.fixture(name='optuna', autouse=False)
def fixture_optuna():
  return pytest.importorskip('optuna', reason='the extra `tune` is missing')


def test_search_gets_better(optuna):
  results = [result for _, result in _search(24)]
  assert min(results[12:]) < min(results[:6])
  assert min(results) < 0.1


def test_search_depends_on_results_and_seed_alone(optuna):
  assert _search(14) == _search(14)
  assert _search(4) != _search(4, seed=2)


def test_failed_trials_stop_nothing(optuna):
  results = [result for _, result in _search(24, fail=True)]
  assert any(map(math.isnan, results))
  assert min(r for r in results if not math.isnan(r)) >= 1.0


def test_points_side_by_side_differ(optuna):
  points = [point for point, _ in _search(4, side_by_side=4)]
  assert len(tuning.unique(points)) == 4

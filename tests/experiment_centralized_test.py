"""Centralized runs: the same run directory, ledger, resume and statement."""

import json

import pytest

from tests import small_runs
from tff_pipeline import config
from tff_pipeline import experiment
from tff_pipeline import validate
from tff_pipeline.privacy import ledger as ledgers
from tff_pipeline.privacy import statement as statements

pytestmark = pytest.mark.usefixtures('without_reports')
_EXAMPLES = 1437


@pytest.fixture(scope='module', autouse=True)
def cached_parts():
  with small_runs.cached_parts():
    yield


def _pooled(*, batches='poisson', noise_seed=7, rounds=2, **privacy):
  mechanism = {
    'mechanism': 'dp_sgd',
    'noise_multiplier': 1.0,
    'clip_norm': 1.0,
    'delta': 1e-4,
    'population': _EXAMPLES,
    'noise_seed': noise_seed,
  }
  return small_runs.build(
    cohort=config.full(),
    client=config.Client(batch_size=240, learning_rate=0.5),
    server=config.Server(),
    algorithm=config.Algorithm(name='centralized', batches=batches),
    privacy=config.Privacy(**(mechanism | privacy)),
    rounds=rounds,
    checkpoint_every=1,
    evaluate_every=1,
  )


def _statement(folder):
  return json.loads((folder / 'privacy.json').read_text())


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs') / 'whole'
  summary = experiment.run(_pooled(rounds=3), folder)
  assert summary['test']['accuracy'] > 0.3  # Chance is one in ten.
  return folder


def test_statement_counts_the_steps_that_were_trained(whole):
  statement = _statement(whole)
  assert (statement['unit'], statement['rounds']) == ('example', 3)
  assert '6 steps a round' in statement['sampler']
  row = small_runs.rows(whole)[-1]
  assert float(row['epsilon']) == statement['epsilon']
  # 1437 / 240 is six batches: the training says so as well.
  assert float(row['unnoised_train_num_batches']) == 6.0


def test_resumed_run_with_keyed_noise_equals_an_uninterrupted_one(
  whole, tmp_path
):
  small_runs.crashed(_pooled(rounds=3), tmp_path, in_round=2)
  experiment.run(_pooled(rounds=3), tmp_path)
  small_runs.assert_same(tmp_path, whole, _pooled(rounds=3))
  assert _statement(tmp_path)['attempts_replayed'] == {'2': 1}


def test_replay_with_unkeyed_noise_is_paid_for(tmp_path):
  wanted = _pooled(batches='fixed_size', noise_seed=None)
  small_runs.crashed(wanted, tmp_path / 'crashed', in_round=2)
  experiment.run(wanted, tmp_path / 'crashed')
  experiment.run(wanted, tmp_path / 'whole')
  crashed, whole = (_statement(tmp_path / n) for n in ('crashed', 'whole'))
  assert crashed['rounds_by_noise_keys'] == {'1': 1, '2': 1}
  assert whole['rounds_by_noise_keys'] == {'1': 2}
  assert crashed['epsilon'] > whole['epsilon']
  assert any('own generator' in text for text in crashed['assumptions'])
  assert not (tmp_path / 'crashed' / 'noise_key').exists()
  replayed = ledgers.Ledger.read(tmp_path / 'crashed' / 'ledger')
  derived = statements.build(
    config.terms(wanted),
    released=replayed.release_counts(2),
    replays=replayed.replays(),
  )
  assert statements.differences(crashed, derived) == []


def test_without_privacy_it_is_plain_training(tmp_path):
  wanted = small_runs.build(
    cohort=config.full(),
    client=config.Client(batch_size=50, learning_rate=0.2),
    server=config.Server(),
    algorithm=config.Algorithm(name='centralized', batches='fixed_size'),
    privacy=config.no_privacy(),
    rounds=2,
  )
  summary = experiment.run(wanted, tmp_path)
  assert summary['privacy']['epsilon'] == 'inf'
  assert summary['test']['accuracy'] > 0.8


def _refused(flag, make):
  with pytest.raises(validate.UsageError, match=f'^--{flag}: expected'):
    make()


def test_what_the_data_does_not_fit_is_refused(tmp_path):
  def run(**privacy):
    return lambda: experiment.run(_pooled(**privacy), tmp_path / 'run')

  _refused('privacy.population', run(population=1000, delta=9e-4))
  _refused('privacy.delta', run(delta=1 / _EXAMPLES))
  assert not (tmp_path / 'run').exists()


def test_a_seed_for_noise_that_has_no_key_is_refused():
  _refused(
    'privacy.noise_seed', lambda: _pooled(batches='fixed_size', noise_seed=1)
  )

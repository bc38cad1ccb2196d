"""Training that goes wrong numerically: said, counted, and never cheaper."""

import json

import numpy as np
import pytest

from tests import small_runs
from tff_pipeline import config
from tff_pipeline import experiment
from tff_pipeline.data import defects
from tff_pipeline.data import digits
from tff_pipeline.privacy import ledger as ledgers

pytestmark = pytest.mark.usefixtures('without_reports')
_REJECTED = 'unnoised_train_rejected_updates'


def _run(folder, **changes):
  summary = experiment.run(small_runs.build(**changes), folder)
  return summary, small_runs.rows(folder)


def _assert_price_is_the_ordinary_one(summary):
  terms = config.terms(small_runs.build())
  privacy = summary['privacy']
  assert privacy['rounds'] == small_runs.ROUNDS
  assert privacy['mechanism'] == 'gaussian'
  assert privacy['releases'][0]['noise_multiplier'] == (
    terms.privacy.noise_multiplier
  )


def test_clients_that_explode_are_rejected_and_the_run_goes_on(tmp_path):
  summary, rows = _run(
    tmp_path,
    client=config.Client(batch_size=10, learning_rate=1e30, epochs=2),
  )
  for row in rows:
    assert float(row[_REJECTED]) == float(row['unnoised_cohort_size'])
  assert summary['status'] == experiment.FINISHED
  _assert_price_is_the_ordinary_one(summary)
  assert all(np.isfinite(w).all() for w in small_runs.weights(tmp_path))


def test_one_client_with_a_nan_is_rejected_alone(tmp_path, monkeypatch):
  load = digits.load

  def broken(task, *, data_dir):
    loaded = load(task, data_dir=data_dir)
    loaded.train.x[7, 3] = np.nan
    return loaded

  monkeypatch.setattr(digits, 'load', broken)
  monkeypatch.setattr(defects, 'check', lambda *args, **kwargs: None)
  summary, rows = _run(
    tmp_path, cohort=config.fixed_size(30), privacy=_fixed_size_privacy()
  )
  rejected = [float(row[_REJECTED]) for row in rows]
  assert set(rejected) == {0.0, 1.0}  # The half of the rounds, by expectation.
  assert all(np.isfinite(float(row['unnoised_train_loss'])) for row in rows)
  assert np.isfinite(summary['test']['loss'])


def _fixed_size_privacy():
  return small_runs.privacy(noise_seed=11)


def test_weights_that_overflow_end_the_run_with_round_and_reason(tmp_path):
  wanted = small_runs.build(
    server=config.Server(learning_rate=1e38, momentum=0.9),
    privacy=small_runs.privacy(noise_multiplier=50.0, clip_norm=50.0),
  )
  for attempt in (1, 2):
    with pytest.raises(
      experiment.Failed, match=r'not finite after round \d: training diverged'
    ) as failed:
      experiment.run(wanted, tmp_path)
    round_num = int(str(failed.value).split('after round ')[1][0])
    ledger = ledgers.Ledger.read(tmp_path / 'ledger')
    assert ledger.last_round == round_num
    assert ledger.entries[-1].attempt == attempt
    assert not (tmp_path / 'privacy.json').exists()


@pytest.mark.parametrize(
  'privacy',
  [{'noise_multiplier': 1e6}, {'clip_norm': 1e-30}, {'clip_norm': 1e6}],
  ids=['noise', 'tiny clip norm', 'large clip norm'],
)
@pytest.mark.slow
def test_noise_far_from_the_signal_is_a_run_like_any_other(tmp_path, privacy):
  summary, rows = _run(tmp_path, privacy=small_runs.privacy(**privacy))
  assert summary['status'] == experiment.FINISHED
  assert {float(row[_REJECTED]) for row in rows} == {0.0}
  assert all(np.isfinite(w).all() for w in small_runs.weights(tmp_path))


@pytest.mark.parametrize('mechanism', ['gaussian', 'none'])
def test_updates_of_norm_zero_are_no_division_by_zero(tmp_path, mechanism):
  privacy = small_runs.privacy(noise_multiplier=0.0)
  if mechanism == 'none':
    privacy = config.Privacy(mechanism='none')
  summary, rows = _run(
    tmp_path,
    client=config.Client(batch_size=10, learning_rate=1e-38),
    privacy=privacy,
  )
  assert {float(row[_REJECTED]) for row in rows} == {0.0}
  losses = {row['test_loss'] for row in rows if row['test_loss'] != 'nan'}
  assert len(losses) == 1  # Nothing was learned, and nothing broke.
  assert summary['privacy']['epsilon'] == 'inf'
  written = json.loads((tmp_path / 'summary.json').read_text())
  assert 'epsilon' in experiment.describe(written, tmp_path)

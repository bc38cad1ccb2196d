"""Run directories of which something is lost, damaged or exchanged."""

import shutil

import pytest

from tests import small_runs
from tff_pipeline import experiment
from tff_pipeline import validate
from tff_pipeline.experiment import session
from tff_pipeline.privacy import noise_key as noise_keys


@pytest.fixture(scope='module', autouse=True)
def cached_parts():
  with small_runs.cached_parts(), small_runs.without_reports():
    yield


@pytest.fixture
def unseeded(monkeypatch):
  """A config with drawn keys: the first one, then the other one."""
  unused = list(small_runs.KEYS)
  monkeypatch.setattr(noise_keys, 'draw', lambda: unused.pop(0))
  return small_runs.build(privacy=small_runs.privacy(noise_seed=None))


def test_noise_key_outlives_a_death_before_the_first_round(
  tmp_path, monkeypatch, unseeded
):
  def die(*args, **kwargs):
    raise small_runs.Crash

  with monkeypatch.context() as patch:
    patch.setattr(session, 'Session', die)
    with pytest.raises(small_runs.Crash):
      experiment.run(unseeded, tmp_path)
  names = {p.name for p in tmp_path.iterdir()}
  assert names == {'config.json', 'lock', 'noise_key'}
  experiment.run(unseeded, tmp_path)
  key = noise_keys.from_text((tmp_path / 'noise_key').read_text())
  assert key == small_runs.KEYS[0]
  fingerprint = noise_keys.fingerprint(key)
  assert {entry[2] for entry in small_runs.ledger(tmp_path)} == {fingerprint}


def test_lost_noise_key_is_refused_if_a_checkpoint_needs_it(tmp_path, unseeded):
  small_runs.crashed(unseeded, tmp_path, in_round=4)
  (tmp_path / 'noise_key').unlink()
  before = small_runs.snapshot(tmp_path)
  with pytest.raises(validate.UsageError, match='--output_dir.*noise key'):
    experiment.run(unseeded, tmp_path)
  assert small_runs.snapshot(tmp_path) == before


def test_exchanged_noise_key_is_refused(tmp_path, unseeded):
  small_runs.crashed(unseeded, tmp_path, in_round=4)
  (tmp_path / 'noise_key').write_text(noise_keys.to_text(small_runs.KEYS[1]))
  before = small_runs.snapshot(tmp_path)
  with pytest.raises(validate.UsageError, match='noise key that the checkpoin'):
    experiment.run(unseeded, tmp_path)
  assert small_runs.snapshot(tmp_path) == before


@pytest.mark.parametrize('text', ['', 'not a key', '00ff'])
def test_damaged_noise_key_is_refused(unseeded, tmp_path, text):
  small_runs.crashed(unseeded, tmp_path / 'run', in_round=1)
  (tmp_path / 'run' / 'noise_key').write_text(text)
  with pytest.raises(validate.UsageError, match='--output_dir.*noise key'):
    experiment.run(unseeded, tmp_path / 'run')


def test_lost_noise_key_and_checkpoints_cost_a_second_release(
  tmp_path, unseeded
):
  small_runs.crashed(unseeded, tmp_path, in_round=4)
  (tmp_path / 'noise_key').unlink()
  shutil.rmtree(tmp_path / 'checkpoints')
  summary = experiment.run(unseeded, tmp_path)
  # Four of the six rounds were released twice, from the same cohorts.
  assert summary['privacy']['rounds_by_noise_keys'] == {'1': 2, '2': 4}
  first, second = map(noise_keys.fingerprint, small_runs.KEYS)
  assert [entry[2] for entry in small_runs.ledger(tmp_path)] == (
    [first] * 4 + [second] * 6
  )


def _edit_ledger(folder, rounds):
  path = folder / 'ledger'
  path.write_text(''.join(path.read_text().splitlines(True)[:rounds]))


def _edit_rows(folder, rounds):
  path = folder / 'metrics.csv'
  path.write_text(''.join(path.read_text().splitlines(True)[: rounds + 1]))


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda f: (f / 'ledger').unlink(), 'ledger of the 3 rounds.*found 0'),
    (lambda f: _edit_ledger(f, 1), 'ledger of the 3 rounds.*found 1'),
    # It has the rounds of the checkpoint, but not those of the table.
    (lambda f: _edit_ledger(f, 2), 'ledger of the 3 rounds.*found 2'),
    (lambda f: _edit_rows(f, 1), 'metrics.csv with the 2 rounds.*found 1'),
    (lambda f: (f / 'metrics.csv').unlink(), 'metrics.csv.*found 0 rounds'),
  ],
  ids=['no ledger', 'short', 'shorter than rows', 'few rows', 'no rows'],
)
def test_records_that_disagree_are_refused(crashed_run, damage, message):
  damage(crashed_run)
  rows = crashed_run / 'metrics.csv'
  before = rows.read_bytes() if rows.exists() else None
  with pytest.raises(validate.UsageError, match=f'--output_dir: .*{message}'):
    experiment.run(small_runs.build(), crashed_run)
  assert before == (rows.read_bytes() if rows.exists() else None)
  assert not (crashed_run / 'summary.json').exists()


def test_corrupt_checkpoint_falls_back_and_says_so(whole_run, tmp_path, caplog):
  small_runs.crashed(small_runs.build(), tmp_path, in_round=6)
  path = tmp_path / 'checkpoints' / 'round_4' / 'saved_model.pb'
  path.write_bytes(path.read_bytes()[:100])
  experiment.run(small_runs.build(), tmp_path)
  assert 'round 4 cannot be read' in caplog.text
  assert (tmp_path / 'checkpoints' / 'corrupt_4_1').is_dir()
  small_runs.assert_finished_like(tmp_path, whole_run)
  assert [
    r for r, attempt in small_runs.attempts(tmp_path) if attempt == 2
  ] == [
    3,
    4,
    5,
    6,
  ]


def test_without_a_readable_checkpoint_it_starts_again_loudly(
  whole_run, crashed_run, caplog
):
  (crashed_run / 'checkpoints' / 'round_2' / 'saved_model.pb').unlink()
  experiment.run(small_runs.build(), crashed_run)
  assert 'starting again from round 1' in caplog.text
  small_runs.assert_finished_like(crashed_run, whole_run)


def test_max_epsilon_counts_rounds_that_will_be_released_again(
  tmp_path, unseeded
):
  small_runs.crashed(unseeded, tmp_path, in_round=4)
  price = float(small_runs.rows(tmp_path)[1]['epsilon'])
  (tmp_path / 'noise_key').unlink()
  shutil.rmtree(tmp_path / 'checkpoints')
  before = small_runs.attempts(tmp_path)
  # Enough for four rounds once, not for twice.
  with pytest.raises(validate.UsageError, match='--max_epsilon'):
    experiment.run(unseeded, tmp_path, max_epsilon=price * 1.6)
  assert small_runs.attempts(tmp_path) == before

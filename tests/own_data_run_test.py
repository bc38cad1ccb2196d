"""Whole runs on a user's own files: streamed, as CSV, and as regression."""

import json

import numpy as np
import pytest

from tests import small_runs
from tests.data import sqlite_files
from tests.data.files import own_data
from tff_pipeline import config
from tff_pipeline import experiment
from tff_pipeline import tasks
from tff_pipeline import validate
from tff_pipeline.data import streamed

_NOT_PRIVATE = config.Privacy(mechanism='none')


def _run(folder, task, *, cohort, rounds=3):
  wanted = small_runs.build(
    task=task,
    cohort=config.fixed_size(cohort),
    privacy=_NOT_PRIVATE,
    rounds=rounds,
  )
  return experiment.run(wanted, folder)


def test_next_cohort_is_read_ahead(tmp_path, monkeypatch):
  path = sqlite_files.write(tmp_path / 'own.sqlite', clients=30)
  announced, gathered = [], []
  prefetch, gather = (
    streamed.StreamedClients.prefetch,
    streamed.StreamedClients.gather,
  )

  def record_prefetch(self, clients):
    announced.append(sorted(clients))
    prefetch(self, clients)

  def record_gather(self, clients):
    gathered.append(sorted(clients))
    return gather(self, clients)

  monkeypatch.setattr(streamed.StreamedClients, 'prefetch', record_prefetch)
  monkeypatch.setattr(streamed.StreamedClients, 'gather', record_gather)
  task = config.Task(
    name='tff_sqlite',
    path=str(path),
    label_column='label',
    classes=sqlite_files.CLASSES,
  )
  summary = _run(tmp_path / 'run', task, cohort=7)
  assert summary['rounds'] == 3
  assert len(gathered) == 3 and announced == gathered[1:]


def test_csv_run_keeps_its_encoding_and_no_user_id(tmp_path):
  task = own_data.task(own_data.csv(tmp_path))
  summary = _run(tmp_path / 'run', task, cohort=3)
  assert 0.0 <= summary['test']['accuracy'] <= 1.0
  encoding = json.loads((tmp_path / 'run' / 'encoding.json').read_text())
  assert encoding['classes'] == ['no', 'yes']
  assert [one['column'] for one in encoding['features']] == [
    'age',
    'city',
    'income',
  ]
  uncovered = ' '.join(summary['privacy']['not_covered'])
  assert 'means and standard deviations' in uncovered
  written = b''.join(
    file.read_bytes()
    for file in (tmp_path / 'run').rglob('*')
    if file.is_file()
  )
  assert not any(name.encode() in written for name in own_data.NAMES[:3])


def test_ids_with_characters_of_paths_lead_nowhere(tmp_path):
  frame = own_data.frame()
  ids = {
    own_data.NAMES[0]: '../../escaped',
    own_data.NAMES[1]: f'{tmp_path}/absolute',
    own_data.NAMES[2]: 'a\nb\t"c"\\d',
    own_data.NAMES[3]: '$(touch run)|`x`;%s{}',
  }
  frame['user'] = frame.user.map(ids)
  task = own_data.task(own_data.csv(tmp_path, frame))
  summary = _run(tmp_path / 'run', task, cohort=3)
  assert summary['status'] == experiment.FINISHED
  assert {path.name for path in tmp_path.iterdir()} == {'own.csv', 'run'}
  written = b''.join(
    file.read_bytes()
    for file in (tmp_path / 'run').rglob('*')
    if file.is_file()
  )
  assert b'escaped' not in written and b'/absolute' not in written


@pytest.mark.parametrize('partition', ['natural', 'quantity_skew'])
def test_regression_learns(tmp_path, partition):
  frame = own_data.frame(800)
  rng = np.random.default_rng(1)
  frame['income'] = 300.0 * frame.age + rng.normal(0, 1_000, len(frame))
  dealt = (
    {'partition': partition, 'clients': 9, 'size_sigma': 1.0}
    if partition != 'natural'
    else {}
  )
  task = own_data.task(
    own_data.csv(tmp_path, frame),
    label_column='income',
    target='numbers',
    feature_columns='age',
    categorical_columns=None,
    model='softmax_regression',
    **dealt,
  )
  summary = _run(tmp_path / 'run', task, cohort=4, rounds=6)
  # The noise is 1,000 of a deviation of about 6,300.
  assert summary['test']['root_mean_squared_error'] < 0.3


def _private(task, folder, **leaves):
  wanted = small_runs.build(
    task=task,
    cohort=config.poisson(3),
    privacy=small_runs.privacy(
      population=task.clients or len(own_data.NAMES), **leaves
    ),
  )
  return wanted, folder


def test_data_that_changed_between_two_attempts_is_refused(tmp_path):
  """The same noise on two data sets: their difference is not noised at all."""
  path = own_data.csv(tmp_path)
  wanted, folder = _private(own_data.task(path), tmp_path / 'run')
  small_runs.crashed(wanted, folder, in_round=4)
  original = own_data.frame()
  changed = original.copy()
  changed.loc[0, 'age'] += 1
  own_data.csv(tmp_path, changed)
  with pytest.raises(validate.UsageError, match='--output_dir: .*the data'):
    experiment.run(wanted, folder)
  own_data.csv(tmp_path, original)
  assert experiment.run(wanted, folder)['rounds'] == wanted.rounds


def test_name_of_the_data_in_the_record_needs_the_noise_key(tmp_path):
  """It would say which of two data sets it was, to whoever has both."""
  path = own_data.csv(tmp_path)
  names = []
  for key in (1, 2):
    wanted, folder = _private(
      own_data.task(path), tmp_path / f'run{key}', noise_seed=key
    )
    small_runs.crashed(wanted, folder, in_round=1)
    names.append(json.loads((folder / 'config.json').read_text())['data_tag'])
  assert names[0] != names[1]
  folder = tmp_path / 'plain'
  _run(folder, own_data.task(path), cohort=3, rounds=1)
  assert 'data_tag' not in json.loads((folder / 'config.json').read_text())


@pytest.mark.parametrize('partition', ['natural', 'iid'])
def test_people_who_were_dealt_to_several_clients_are_not_covered(
  tmp_path, partition
):
  dealt = {'partition': 'iid', 'clients': 9} if partition == 'iid' else {}
  task = own_data.task(own_data.csv(tmp_path), **dealt)
  built = tasks.build(task, seed=0)
  assert any('several clients' in c for c in built.uncovered) == bool(dealt)
  pooled = tasks.build(tasks.pooled(task), seed=0)
  assert not any('several clients' in c for c in pooled.uncovered)

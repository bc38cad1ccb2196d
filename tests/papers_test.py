"""Every experiment file: what it says, what it promises, and that it runs."""

import dataclasses
import json
import math
import pathlib
import shlex
import subprocess
import sys

import pytest

from experiments import cli
from experiments import reproductions as binary
from tests import small_runs
from tff_pipeline import config
from tff_pipeline import experiment
from tff_pipeline import tasks
from tff_pipeline.outputs import run_directory
from tff_pipeline.privacy import statement
from tff_pipeline.report import reproduction_sections
from tff_pipeline.report import reproductions
from tff_pipeline.sweeps import design
from tff_pipeline.sweeps import pricing

PAPERS = tuple(binary.names())
each_paper = pytest.mark.parametrize('name', PAPERS)
each_claim = pytest.mark.parametrize(
  'name',
  [
    n
    for n in cli.experiment_names()
    if hasattr(cli.experiment_file(n), 'CLAIM')
  ],
)
# Whose two rounds take a few seconds; the others are marked slow.
_QUICK = ('abadi_2016', 'silos_heart_disease')


def _runs(name):
  """Returns the planned runs of a paper."""
  file = cli.experiment_file(name)
  return design.plan(file.SWEEP, file.CONFIG)


def test_there_are_papers():
  assert {'mcmahan_2017_2nn', 'abadi_2016', 'fedprox_2020'} < set(PAPERS)


# In one process of its own: absl's flags are global, and TensorFlow has been
# loaded here.
_COMMANDS = """
import json, sys
from absl import flags
from experiments import sweep
from tff_pipeline.sweeps import design

sweep.define_flags()
for argv in json.load(sys.stdin):
  flags.FLAGS.unparse_flags()
  flags.FLAGS(argv)
  base = sweep.cli.read_experiment()
  runs = design.plan(sweep._read_sweep(), base)
  print(json.dumps([flags.FLAGS.experiment, sweep.output_dir(), len(runs)]))
loaded = {name.split('.')[0] for name in sys.modules}
print(json.dumps(sorted(n for n in loaded if n.startswith('tensorflow'))))
"""


@pytest.fixture(name='parsed', scope='module')
def fixture_parsed():
  """Returns what the `Run` fields say to `experiments.sweep`."""
  commands = [
    shlex.split(reproductions.fields(cli.experiment_file(n).__doc__)['Run'])
    for n in PAPERS
  ]
  assert all(c[:3] == ['python', '-m', 'experiments.sweep'] for c in commands)
  done = subprocess.run(
    [sys.executable, '-c', _COMMANDS],
    input=json.dumps([command[2:] for command in commands]),
    capture_output=True,
    text=True,
    check=True,
  )
  return [json.loads(line) for line in done.stdout.splitlines()]


def test_commands_run_their_files(parsed):
  assert parsed[:-1] == [
    [name, f'runs/papers/{name}', len(_runs(name))] for name in PAPERS
  ]


def test_files_load_no_tensorflow(parsed):
  assert parsed[-1] == []


@each_paper
def test_docstring_has_its_fields(name):
  file = cli.experiment_file(name)
  said = reproductions.fields(file.__doc__)
  assert tuple(said) == reproductions.FIELDS
  assert all(len(text) > 10 for text in said.values())
  not_run = 'not run here' in file.__doc__.splitlines()[0]
  assert not_run == ('not run here' in said['Takes'])


@each_claim
def test_claimed_epsilon_is_the_accountants(name):
  file = cli.experiment_file(name)
  target = file.CONFIG.privacy.target_epsilon
  if target is not None:  # `calibration_test` shows that targets are met.
    assert file.CLAIM.epsilon == target
    return
  (price,) = pricing.prices(design.plan(design.Sweep(axes=()), file.CONFIG))
  if math.isinf(price.epsilon):
    assert file.CLAIM.epsilon == math.inf
  else:
    assert f'{file.CLAIM.epsilon:g}' == statement.shown(price.epsilon)


@each_paper
def test_each_row_is_about_one_arm_of_the_sweep(name):
  rows = cli.experiment_file(name).CLAIM.rows
  assert rows
  plans = [
    run_directory.flat(config.to_dict(run.experiment)) for run in _runs(name)
  ]
  for row in rows:
    mine = [
      {k: v for k, v in plan.items() if k not in (*row.tuned, 'seed')}
      for plan in plans
      if all(plan.get(leaf) == value for leaf, value in row.arm.items())
    ]
    assert mine, row.name
    assert all(leaves == mine[0] for leaves in mine), row.name
    if row.target is not None:
      assert mine[0]['evaluate_every'] == 1, row.name
    for leaf in row.tuned:
      assert len({plan[leaf] for plan in plans}) > 1, row.name


@each_paper
def test_each_arm_is_in_a_row(name):
  """What is run is reported."""
  rows = cli.experiment_file(name).CLAIM.rows
  for run in _runs(name):
    leaves = run_directory.flat(config.to_dict(run.experiment))
    assert any(
      all(leaves.get(leaf) == value for leaf, value in row.arm.items())
      for row in rows
    ), run.arm


@pytest.fixture(name='sections', scope='module')
def fixture_sections():
  """Returns the sections of the page of results."""
  page = pathlib.Path(binary.__file__).parent / 'papers' / 'RESULTS.md'
  return reproduction_sections.split(page.read_text(encoding='utf-8'))


@each_paper
def test_results_say_what_the_file_says(name, sections):
  """Its section is kept while it is not run again, and must not grow old."""
  file = cli.experiment_file(name)
  said = reproductions.fields(file.__doc__)
  claim = file.CLAIM
  words = [said[field] for field in ('Paper', 'Differs', 'Run')]
  words += [claim.source, claim.difference]
  words += [f'\n| {row.name}' for row in claim.rows]
  assert [text for text in words if text not in sections[name]] == []


def _tiny(whole):
  """Returns two rounds of an experiment on a stand-in, with few clients."""
  task = dataclasses.replace(
    whole.task,
    source='stand_in',
    clients=None if whole.task.clients is None else min(whole.task.clients, 20),
  )
  train, _ = tasks.clients(tasks.load(task), task=task, seed=0)
  centralized = whole.algorithm.name is config.AlgorithmName.CENTRALIZED
  population = (
    int(train.client_sizes.sum()) if centralized else train.num_clients
  )
  size = whole.cohort.clients_per_round
  private = whole.privacy.mechanism is not config.Mechanism.NONE
  return dataclasses.replace(
    whole,
    task=task,
    cohort=dataclasses.replace(
      whole.cohort, clients_per_round=None if size is None else min(size, 5)
    ),
    client=dataclasses.replace(
      whole.client,
      epochs=min(whole.client.epochs, 2),
      batch_size=min(whole.client.batch_size, 20),
    ),
    privacy=dataclasses.replace(whole.privacy, population=population)
    if private
    else whole.privacy,
    rounds=2,
    evaluate_every=1,
  )


@pytest.mark.parametrize(
  'name',
  [
    name if name in _QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name in PAPERS
  ],
)
def test_two_rounds_run(name, tmp_path):
  wanted = _tiny(cli.experiment_file(name).CONFIG)
  with small_runs.without_reports():
    summary = experiment.run(wanted, tmp_path / 'run')
  assert summary['status'] == 'finished' and summary['rounds'] == 2
  assert math.isfinite(summary['test']['loss'])
  assert len(small_runs.rows(tmp_path / 'run')) == 2

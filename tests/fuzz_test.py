"""Thousands of bad inputs: each is a valid run or one line that says why.

Derandomized, so that a failure is everybody's. Without TensorFlow.
"""

import json
import pathlib

from absl import flags
import hypothesis
from hypothesis import strategies as st
import pytest

from experiments import epsilon
from experiments import quickstart
from tests import fuzzing
from tff_pipeline import config
from tff_pipeline import config_flags
from tff_pipeline import experiment
from tff_pipeline import tasks
from tff_pipeline import validate
from tff_pipeline.outputs import run_directory
from tff_pipeline.privacy import guarantees
from tff_pipeline.privacy import ledger as ledgers
from tff_pipeline.privacy import statement

_LEAVES = config_flags.leaves()
_TEXTS = st.sampled_from(
  [
    *('0', '1', '7', '100', '-1', '0.5', '1e-5', '1e400', 'nan', '-inf', ''),
    *('1_0', ' 3', '٣', '0x10', 'None', 'true', 'quickstart', '../x', 'a\nb'),
    *('9' * 400, '\udcff', '🙂', "'", '"', '%s', '{}', '--rounds=3'),
  ]
)


def _choices(leaf):
  kind = config.leaf_type(leaf)
  values = [str(v) for v in kind] if hasattr(kind, '__members__') else []
  return st.sampled_from(values) if values else _TEXTS


@st.composite
def _arguments(draw):
  name = draw(st.sampled_from(sorted(_LEAVES)))
  value = draw(st.one_of(_TEXTS, _choices(_LEAVES[name])))
  return draw(
    st.sampled_from(
      [
        *[f'--{name}={value}'] * 12,
        *(f'--{name}', f'-{name}={value}', f'--no{name}', f'--{name[:-1]}=1'),
        *('--', '-', '---', '--=3', '--flagfile=/no/such', '--flagfile', value),
        *('--flagfile=.', '--undefok', '--undefok=rounds', f'@{value}'),
      ]
    )
  )


def _parsed(arguments):
  """Returns the experiment of a command line as the binaries read it."""
  flag_values = flags.FlagValues()
  config_flags.define(flag_values)
  flag_values(config_flags.flagfiles_first(['train', *arguments]))
  return config_flags.apply(quickstart.CONFIG, config_flags.given(flag_values))


def _assert_valid(wanted):
  assert config.from_dict(json.loads(json.dumps(config.to_dict(wanted)))) == (
    wanted
  )
  if wanted.privacy.target_epsilon is None:
    try:
      guarantees.build(config.terms(wanted))
    except validate.UsageError as e:
      _assert_one_line(e)


def _assert_one_line(error):
  message = str(error)
  assert message
  assert len(message.splitlines()) == 1, repr(message)


def _check_arguments(arguments):
  try:
    wanted = _parsed(arguments)
  except flags.Error as e:  # cli.run joins the lines of absl's.
    assert str(e)
  except validate.UsageError as e:
    _assert_one_line(e)
  else:
    _assert_valid(wanted)


@fuzzing.many(1000)
@hypothesis.given(st.lists(_arguments(), max_size=5))
def test_command_line_is_an_experiment_or_a_line(arguments):
  _check_arguments(arguments)


@pytest.mark.slow
@fuzzing.many(25_000)
@hypothesis.given(st.lists(_arguments(), max_size=8))
def test_many_more_command_lines(arguments):
  _check_arguments(arguments)


_JSON = st.recursive(
  st.none()
  | st.booleans()
  | st.integers(-(10**30), 10**30)
  | st.floats()
  | st.text(max_size=8)
  | st.sampled_from(sorted({n.rpartition('.')[-1] for n in _LEAVES})),
  lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3)
  ),
  max_leaves=5,
)


@st.composite
def _mutated_config(draw):
  values = config.to_dict(quickstart.CONFIG)
  for _ in range(draw(st.integers(1, 3))):
    place = values
    section = draw(st.sampled_from(sorted(values)))
    if isinstance(values[section], dict) and draw(st.booleans()):
      place = values[section]
    names = st.sampled_from(sorted({*place, 'unknown'}) or ['unknown'])
    name = draw(st.one_of(names, st.text(max_size=6)))
    if draw(st.booleans()):
      place.pop(name, None)
    else:
      place[name] = draw(_JSON)
    if not values:
      break
  return values


def _check_config(values):
  try:
    wanted = config.from_dict(values)
  except validate.UsageError as e:
    _assert_one_line(e)
  else:
    _assert_valid(wanted)


@fuzzing.many(1000)
@hypothesis.given(_mutated_config())
def test_mutated_config_is_an_experiment_or_a_line(values):
  _check_config(values)


@pytest.mark.slow
@fuzzing.many(25_000)
@hypothesis.given(_mutated_config())
def test_many_more_mutated_configs(values):
  _check_config(values)


@pytest.mark.parametrize('values', [None, [], 3, 'x', {'task': 3}, {3: 4}])
def test_what_is_no_config_is_a_line(values):
  with pytest.raises(validate.UsageError) as refused:
    config.from_dict(values)
  _assert_one_line(refused.value)


@st.composite
def _damage(draw, content):
  """Flips, inserts, deletes or repeats a few bytes; the end stays."""
  start = draw(st.integers(0, len(content) - 1))
  size = draw(st.integers(1, 2))
  kind = draw(st.sampled_from(['flip', 'insert', 'delete', 'repeat']))
  if kind == 'flip':
    flips = draw(st.lists(st.integers(1, 255), min_size=size, max_size=size))
    found = content[start : start + size]
    middle = bytes(a ^ b for a, b in zip(found, flips, strict=False))
    return content[:start] + middle + content[start + len(middle) :]
  if kind == 'insert':
    middle = draw(st.binary(min_size=1, max_size=6))
    return content[:start] + middle + content[start:]
  if kind == 'repeat':
    end = min(len(content), start + 40 * size)
    return content[:end] + content[start:end] + content[end:]
  start = min(start, max(0, len(content) - size - 1))
  return content[:start] + content[start + size :]


_KEYS = ('sha256:0123456789abcdef', 'sha256:fedcba9876543210')
_STARTS = [(r, 0) for r in range(1, 7)] + [(r, 1) for r in (5, 6, 7, 8)]


@pytest.fixture(scope='module')
def ledger_bytes(tmp_path_factory):
  path = tmp_path_factory.mktemp('ledger') / 'ledger'
  for round_num, key in _STARTS:
    ledgers.Ledger.open(path, noise_key=_KEYS[key]).append(round_num)
  return path.read_bytes()


@fuzzing.many(1000)
@hypothesis.given(st.data())
def test_damaged_ledger_is_refused_or_not_cheaper(
  ledger_bytes, tmp_path_factory, data
):
  path = tmp_path_factory.getbasetemp() / 'damaged_ledger'
  path.write_bytes(data.draw(_damage(ledger_bytes)))
  try:
    read = ledgers.Ledger.read(path)
    opened = ledgers.Ledger.open(path, noise_key=_KEYS[1])
  except validate.UsageError as e:
    _assert_one_line(e)
    return
  assert read.entries == opened.entries
  assert opened.last_round >= 8
  assert opened.release_counts(8).by_keys() == {1: 6, 2: 2}


_SMALL = config.Experiment(
  task=config.Task(name='digits', partition='iid', clients=300),
  cohort=config.poisson(10),
  client=config.Client(batch_size=10, learning_rate=0.1),
  server=config.Server(learning_rate=1.0),
  privacy=config.gaussian(
    noise_multiplier=1.0,
    clip_norm=1.0,
    delta=1e-3,
    population=300,
    noise_seed=1,
  ),
  rounds=8,
)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """The records of a finished run, without having run it."""
  folder = tmp_path_factory.mktemp('runs') / 'finished'
  with run_directory.RunDirectory(folder) as directory:
    directory.claim({'config': config.to_dict(_SMALL), 'argv': ['train']})
  for round_num, key in _STARTS:
    ledgers.Ledger.open(folder / 'ledger', noise_key=_KEYS[key]).append(
      round_num
    )
  started = ledgers.Ledger.read(folder / 'ledger')
  derived = statement.build(
    config.terms(_SMALL),
    released=started.release_counts(8),
    replays=started.replays(),
  )
  run_directory.write_json(folder / 'privacy.json', derived)
  summary = {
    'status': experiment.FINISHED,
    'rounds': 8,
    'data': 'real',
    'test': {'loss': float('nan'), 'accuracy': 0.9},
    'privacy': derived,
    'versions': {'python': '3.11'},
  }
  run_directory.write_json(folder / 'summary.json', summary)
  return folder


class _WouldRun(Exception):
  pass


@pytest.fixture
def not_run(monkeypatch):
  def refuse(*args, **kwargs):
    raise _WouldRun

  monkeypatch.setattr(tasks, 'prepare', refuse)


def _damaged(folder, name, data):
  """Damages one file of the folder; returns how to undo it."""
  path = folder / name
  before = path.read_bytes()
  path.write_bytes(data.draw(_damage(before)))
  return lambda: path.write_bytes(before)


def test_finished_run_shows_its_summary(finished, not_run):
  summary = experiment.run(_SMALL, finished)
  assert summary['rounds'] == 8
  assert 'loss nan, accuracy 0.9000' in experiment.describe(summary, finished)


@fuzzing.many(120)
@hypothesis.given(st.data())
def test_damaged_finished_run_shows_no_lower_epsilon(finished, not_run, data):
  whole = run_directory.read_json(finished / 'privacy.json')
  name = data.draw(
    st.sampled_from(['config.json', 'ledger', 'summary.json', 'summary.json'])
  )
  undo = _damaged(finished, name, data)
  try:
    summary = experiment.run(_SMALL, finished)
  except _WouldRun:
    return
  except validate.UsageError as e:
    _assert_one_line(e)
    return
  finally:
    undo()
  assert not statement.differences(summary['privacy'], whole)
  experiment.describe(summary, finished)


@fuzzing.many(120)
@hypothesis.given(st.data())
def test_check_of_a_damaged_run_agrees_to_no_other_epsilon(
  finished, monkeypatch, data
):
  said = []
  monkeypatch.setattr('builtins.print', lambda *args: said.append(args))
  name = data.draw(st.sampled_from(['config.json', 'ledger', 'privacy.json']))
  whole = run_directory.read_json(finished / 'privacy.json')
  undo = _damaged(finished, name, data)
  try:
    status = epsilon.check_run(pathlib.Path(finished))
  except validate.UsageError as e:
    _assert_one_line(e)
    return
  finally:
    undo()
  assert status in (0, 1)
  if status == 0:
    assert (whole['sentence'],) in said


def test_solution_that_was_changed_is_refused(tmp_path):
  with run_directory.RunDirectory(tmp_path) as directory:
    directory.claim({'config': {}, 'solved': {'leaf': 'x', 'value': 1.0}})
  path = tmp_path / 'config.json'
  path.write_text(path.read_text().replace('1.0', '2.0'))
  with pytest.raises(validate.UsageError, match='as it was written'):
    run_directory.RunDirectory(tmp_path)

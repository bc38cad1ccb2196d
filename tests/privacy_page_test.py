"""docs/privacy.md shows what `python -m experiments.epsilon` prints."""

import pathlib
import shlex

from absl import flags
import pytest

from experiments import epsilon
from tff_pipeline import config
from tff_pipeline import config_flags

PAGE = pathlib.Path(__file__).parents[1] / 'docs' / 'privacy.md'
PROMPT = '$ python -m experiments.epsilon '


def examples():
  """Returns (command line, shown lines) of the page."""
  found = []
  inside = False
  for line in PAGE.read_text(encoding='utf-8').splitlines():
    if line.startswith('```'):
      inside = line == '```console'
    elif inside and line.startswith(PROMPT):
      found.append((line.removeprefix(PROMPT), []))
    elif inside:
      found[-1][1].append(line)
  return found


def printed(command, capsys):
  values = flags.FlagValues()
  config_flags.define(values)
  values(['epsilon', *shlex.split(command)])
  experiment = epsilon.priced_alone(config_flags.given(values))
  epsilon.print_price(experiment, ('pld', 'rdp'))
  return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize('command, shown', examples())
def test_every_line_shown_is_printed(command, shown, capsys):
  lines = iter(printed(command, capsys))
  assert shown
  for line in shown:
    assert line in lines  # In this order: `in` uses the iterator up.


def test_every_mechanism_has_an_example():
  commands = ' '.join(command for command, _ in examples())
  for mechanism in config.Mechanism:
    priced = mechanism is not config.Mechanism.NONE
    assert (f'--privacy.mechanism={mechanism} ' in commands) is priced
    assert f'| `{mechanism}`' in PAGE.read_text(encoding='utf-8')

"""docs/privacy.md shows what `python -m experiments.epsilon` prints."""

import shlex

from absl import flags
import pytest

from experiments import epsilon
from tests import page_commands
from tff_pipeline import config
from tff_pipeline import config_flags

PAGE = 'privacy.md'
COMMANDS = page_commands.read(PAGE)


def printed(command, capsys):
  values = flags.FlagValues()
  config_flags.define(values)
  program, *arguments = shlex.split(command)
  assert program == 'experiments.epsilon'
  values(['epsilon', *arguments])
  experiment = epsilon.priced_alone(config_flags.given(values))
  epsilon.print_price(experiment, ('pld', 'rdp'))
  return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize('command, shown', COMMANDS)
def test_every_line_shown_is_printed(command, shown, capsys):
  page_commands.assert_printed(shown, printed(command, capsys))


def test_every_mechanism_has_an_example():
  commands = ' '.join(command for command, _ in COMMANDS)
  text = (page_commands.DOCS / PAGE).read_text(encoding='utf-8')
  for mechanism in config.Mechanism:
    priced = mechanism is not config.Mechanism.NONE
    assert (f'--privacy.mechanism={mechanism} ' in commands) is priced
    assert f'| `{mechanism}`' in text

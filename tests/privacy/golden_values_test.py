"""The table "Golden values" of docs/privacy.md, priced again."""

import fractions
import pathlib
import re

import dp_accounting
import pytest

from tff_pipeline import config
from tff_pipeline.privacy import accountants
from tff_pipeline.privacy import accounting

_PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'privacy.md'
_COLUMNS = 8


def rows():
  """Returns the cells of each row, as text."""
  page = _PAGE.read_text(encoding='utf-8')
  section = page.split('## Golden values')[1].split('\n## ')[0]
  lines = [line for line in section.splitlines() if line.startswith('| ')]
  found = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]
  assert all(len(row) == _COLUMNS for row in found)
  return found[1:]


def event(text):
  """Returns the event of one round, such as of 'Poisson 1 of 10, z = 3'."""
  sampling, noise = text.split(', z = ')
  gaussian = dp_accounting.GaussianDpEvent(float(noise))
  if sampling == 'all':
    return gaussian
  name, size, population = re.fullmatch(
    r'(Poisson|exactly) (\d+) of (\d+)', sampling
  ).groups()
  if name == 'Poisson':
    return dp_accounting.PoissonSampledDpEvent(
      int(size) / int(population), gaussian
    )
  return dp_accounting.SampledWithoutReplacementDpEvent(
    int(population), int(size), gaussian
  )


def number(text):
  return float(fractions.Fraction(text))


@pytest.mark.parametrize(
  'what, relation, rounds, delta, by, ours, reference, source', rows()
)
def test_golden_value(
  what, relation, rounds, delta, by, ours, reference, source
):
  price = {'RDP': accountants.rdp, 'PLD': accountants.pld}[by]
  found = price(
    dp_accounting.SelfComposedDpEvent(event(what), int(rounds)),
    accounting.RELATIONS[config.Relation(relation)],
    delta=number(delta),
  )
  assert f'{found:.4f}' == ours
  # As many digits as the source gives; our PLD grid is not its 1e-4.
  digits = len(reference.split('.')[1])
  assert found == pytest.approx(
    number(reference), rel=1.5e-4, abs=0.5 * 10**-digits
  )
  assert source


def test_the_table_has_every_kind_of_event():
  events = {re.split(r'[ ,]', row[0])[0] for row in rows()}
  assert events == {'Poisson', 'exactly', 'all'}
  assert {row[1] for row in rows()} == {str(r) for r in config.Relation}

"""docs/algorithms.md names every choice, and no flag that does not exist."""

import pathlib
import re

import pytest

from tff_pipeline import config
from tff_pipeline import config_flags

TEXT = (pathlib.Path(__file__).parents[1] / 'docs' / 'algorithms.md').read_text(
  encoding='utf-8'
)
CHOICES = (
  config.AlgorithmName,
  config.Aggregator,
  config.CompressionName,
  config.AttackName,
)


@pytest.mark.parametrize(
  'value', [v for choice in CHOICES for v in choice if v != 'none']
)
def test_choice_is_on_the_page(value):
  assert f'`{value}`' in TEXT


def test_flags_of_the_page_exist():
  found = set(re.findall(r'--([a-z_]+\.[a-z_]+)', TEXT))
  assert found and found <= set(config_flags.leaves())


@pytest.mark.parametrize('name', config.AlgorithmName)
def test_page_names_the_first_author_and_year(name):
  author, year = re.match(
    r'(\w+) et al\. (\d{4})', config.ALGORITHMS[name].paper
  ).groups()
  [row, *_] = [x for x in TEXT.splitlines() if x.startswith(f'| `{name}`')]
  assert f'{author} et al. {year}' in row

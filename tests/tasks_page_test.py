"""docs/tasks.md names what there is."""

import pathlib
import re
import subprocess
import sys

import pytest

from tff_pipeline import tasks

PAGE = (pathlib.Path(__file__).parents[1] / 'docs' / 'tasks.md').read_text(
  encoding='utf-8'
)
_STANDARD = [name for name in tasks.TASKS if f'\n| `{name}` |' in PAGE]


def _row(name):
  """Returns the cells of the first row about a task."""
  found = re.search(rf'^\| `{name}` \|.*\|$', PAGE, re.MULTILINE)
  return [cell.strip() for cell in found[0].strip('|').split('|')]


def test_page_has_the_thirteen_standard_tasks():
  assert len(_STANDARD) == 13


@pytest.mark.parametrize('name', _STANDARD)
def test_page_names_the_models_of_a_task(name):
  models = _row(name)[3]
  if models != 'the same':
    assert re.findall(r'`(\w+)`', models) == list(tasks.TASKS[name].models)


@pytest.mark.parametrize('name', _STANDARD)
def test_page_has_a_measured_row(name):
  table = re.search('<!-- table: begin -->(.*)<!-- table: end -->', PAGE, re.S)
  if not table[1].strip():
    pytest.skip('The page has not been measured yet; when it is, then whole.')
  assert re.search(rf'^\| {name} \|', table[1], re.MULTILINE)


def _replaced(page):
  # In a process of its own: the binary defines absl flags when imported.
  code = (
    'import sys; from experiments import task_table; '
    'print(task_table.replaced(sys.stdin.read(), "new"), end="")'
  )
  return subprocess.run(
    [sys.executable, '-c', code], input=page, capture_output=True, text=True
  )


def test_table_is_replaced_between_its_marks():
  page = 'a\n<!-- table: begin -->\n{}\n<!-- table: end -->\nb\n'
  assert _replaced(page.format('old\nolder')).stdout == page.format('new')
  assert '--output: expected a page with' in _replaced('no marks').stderr

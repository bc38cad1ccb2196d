"""`docs/faults.md` names tests that exist, and their numbers are theirs."""

import ast
import pathlib
import re

from tests import experiment_crash_test
from tests.data import defects_test
from tests.data import reader_fuzz_test

_TESTS = pathlib.Path(__file__).parent
_PAGE = (_TESTS.parent / 'docs' / 'faults.md').read_text(encoding='utf-8')


def _functions(path):
  tree = ast.parse(path.read_text(encoding='utf-8'))
  return {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}


def _row(test):
  (line,) = (line for line in _PAGE.splitlines() if f'::{test}`' in line)
  return line


def test_every_test_that_is_named_exists():
  named = re.findall(r'`([a-z_/]+_test\.py)(?:::(\w+))?`', _PAGE)
  assert len(named) > 40
  for file, function in named:
    path = _TESTS / file
    assert path.exists(), file
    assert not function or function in _functions(path), (file, function)


def test_numbers_are_those_of_the_tests():
  crash = experiment_crash_test
  row = _row('test_kill_at_two_hundred_random_moments')
  assert f'| {crash._MOMENTS} |' in row
  row = _row('test_bad_row_is_named_with_its_client')
  assert f'| {len(defects_test._REFUSED)} |' in row
  row = _row('test_wrong_types_and_shapes_are_refused')
  assert f'| {len(defects_test._FORMS)} |' in row
  kinds = len(reader_fuzz_test._READERS)
  row = _row('test_many_more_damaged_files')
  each = 60 + 2000
  assert f'{each:,} of each of {kinds} kinds' in row
  assert f'| {each * kinds:,} |' in row

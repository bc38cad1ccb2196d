"""The tool that breaks lines finds each of them, and the tests it names."""

import importlib.util
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).parents[1]
_SPEC = importlib.util.spec_from_file_location(
  'break_privacy', _ROOT / 'tools' / 'break_privacy.py'
)
break_privacy = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(break_privacy)


@pytest.mark.parametrize('broken', break_privacy.BREAKS, ids=lambda b: b.what)
def test_line_and_tests_are_there(broken):
  source = (_ROOT / 'tff_pipeline' / broken.file).read_text(encoding='utf-8')
  assert source.count(broken.old) == 1
  for name in broken.tests.split():
    assert (_ROOT / 'tests' / name).exists()


def test_page_has_every_line():
  page = (_ROOT / 'docs' / 'privacy.md').read_text(encoding='utf-8')
  for broken in break_privacy.BREAKS:
    assert f'| {broken.what} | `{broken.file}` |' in page

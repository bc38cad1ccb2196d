"""The two lock files: complete, hashed, bound to no index, in agreement."""

import ast
import pathlib
import re
import sys
import tomllib

import pytest

from experiments import doctor

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOCKS = ('requirements.lock', 'requirements-build.lock')
PYPROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())

# Import names that are not the package's name with underscores.
PACKAGE_OF_IMPORT = {
  'absl': 'absl-py',
  'PIL': 'pillow',
  'grpc': 'grpcio',
  'sklearn': 'scikit-learn',
}


def _pins(name):
  return doctor.parse_lock((ROOT / name).read_text())


def _declared(requirements):
  return {re.match(r'[\w.-]+', r)[0].replace('_', '-') for r in requirements}


def _imported_packages(folder):
  for path in (ROOT / folder).rglob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Import):
        yield from (alias.name.split('.')[0] for alias in node.names)
      elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module.split('.')[0]


@pytest.mark.parametrize('name', LOCKS)
def test_every_package_is_pinned_and_hashed_and_no_index_is_named(name):
  text = (ROOT / name).read_text()
  entries = re.sub(r'#.*|\\\n', '', text).strip().splitlines()
  for entry in entries:
    assert re.fullmatch(
      r'[a-z0-9-]+==\S+(\s+--hash=sha256:[0-9a-f]{64})+', entry.strip()
    )
  assert len(entries) == len(_pins(name))
  assert '://' not in text


def test_the_build_tools_are_those_of_the_environment():
  pins, build_pins = (
    _pins('requirements.lock'),
    _pins('requirements-build.lock'),
  )
  assert set(build_pins) == {'pip', 'setuptools', 'wheel'}
  for package in ('setuptools', 'wheel'):
    assert build_pins[package] == pins[package]


def test_the_lock_holds_everything_that_is_declared():
  project = PYPROJECT['project']
  wanted = project['dependencies'] + project['optional-dependencies']['dev']
  assert _declared(wanted) <= set(_pins('requirements.lock'))


def test_everything_that_is_imported_is_declared():
  ours = {'tff_pipeline', 'experiments'}
  imported = {
    PACKAGE_OF_IMPORT.get(name, name.replace('_', '-'))
    for folder in ours
    for name in _imported_packages(folder)
    if name not in sys.stdlib_module_names | ours
  }
  project = PYPROJECT['project']
  extras = project['optional-dependencies']
  declared = project['dependencies'] + extras['ray'] + extras['tune']
  assert imported <= _declared(declared)


def test_tensorboard_finds_pkg_resources():
  version = _pins('requirements.lock')['setuptools'].split('.')
  assert int(version[0]) < 81

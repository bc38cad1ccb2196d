"""What `docs/security.md` says of the sources."""

import ast
import pathlib

import pytest

from tests import layering_test
from tff_pipeline.data import cifar10

_ROOT = pathlib.Path(__file__).parents[1]
_CODE_LOADERS = {
  *('pickle', 'cPickle', '_pickle', 'cloudpickle', 'dill', 'joblib'),
  *('marshal', 'shelve', 'yaml', 'jsonpickle', 'torch'),
}
_TREE = {
  **layering_test.read_tree(_ROOT / 'tff_pipeline', 'tff_pipeline'),
  **layering_test.read_tree(_ROOT / 'experiments', 'experiments'),
}


def _offences(tree):
  """Returns what unpickles, as module: why."""
  found = []
  for module in tree:
    for imported in layering_test.find_imports(module, tree):
      if imported.name.partition('.')[0] in _CODE_LOADERS:
        found.append(f'{module}: imports {imported.name}')
    for node in ast.walk(ast.parse(tree[module])):
      if isinstance(node, ast.keyword) and node.arg == 'allow_pickle':
        value = getattr(node.value, 'value', True)
        if value is not False:
          found.append(f'{module}: allow_pickle')
      if isinstance(node, ast.Attribute) and node.attr == 'read_pickle':
        found.append(f'{module}: read_pickle')
      name = getattr(getattr(node, 'func', None), 'id', None)
      if name in ('eval', 'exec'):
        found.append(f'{module}: {name}')
  return found


def test_nothing_is_unpickled_but_by_the_reader_that_runs_nothing():
  assert _offences(_TREE) == ['tff_pipeline.data.cifar10: imports pickle']


@pytest.mark.parametrize(
  'name', ['posix system', 'builtins eval', 'numpy load']
)
def test_that_reader_refuses_every_other_name(name):
  module, _, function = name.partition(' ')
  hostile = f'c{module}\n{function}\n(S"true"\ntR.'.encode()
  with pytest.raises(ValueError, match='which no CIFAR batch needs'):
    cifar10.unpickle_plain(hostile)


@pytest.mark.parametrize(
  'source',
  [
    'import pickle',
    'from joblib import load',
    'def f():\n  import dill.source',
    'import importlib\nimportlib.import_module("marshal")',
    'np.load(path, allow_pickle=True)',
    'np.load(path, allow_pickle=trusted)',
    'pd.read_pickle(path)',
    'eval(text)',
  ],
)
def test_what_unpickles_is_found(source):
  assert len(_offences({'tff_pipeline.data.mine': source})) == 1


def test_no_archive_is_unpacked_by_somebody_elses_code():
  for module, source in _TREE.items():
    for name in ('get_file', 'extractall', 'ParseDict', 'unpack_archive'):
      assert f'{name}(' not in source, module


@pytest.mark.parametrize(
  'pin',
  ['keras', 'protobuf', 'scipy', 'wheel', 'pyarrow', 'joblib', 'tensorflow'],
)
def test_audit_is_of_the_pins(pin):
  page = (_ROOT / 'docs' / 'security.md').read_text()
  (version,) = {
    line.split()[2]
    for line in page.splitlines()
    if line.startswith(f'| {pin} ')
  }
  assert f'\n{pin}=={version} ' in (_ROOT / 'requirements.lock').read_text()


def test_page_names_files_that_exist():
  page = (_ROOT / 'docs' / 'security.md').read_text()
  assert 'tff_pipeline/data/defects.py' in page
  assert (_ROOT / 'tff_pipeline' / 'data' / 'defects.py').exists()
  assert '2.14.1' in page
  assert '\ntensorflow==2.14.1 ' in (_ROOT / 'requirements.lock').read_text()

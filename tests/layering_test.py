"""The architecture, enforced: who may import whom, and what else may not be.

A source tree is a mapping from module name to source text, so the checks are
tested below on small trees that break exactly one rule each.
"""

import ast
from collections.abc import Iterator, Mapping
import dataclasses
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = 'tff_pipeline'

# Imports point up this list only; a new room is placed here deliberately.
ROOMS = (
  'validate',
  'config',
  'config_flags',
  'sampling',
  'keyed_noise',
  'client_work',
  'privacy',
  'data',
  'models',
  'tasks',
  'optimizers',
  'aggregation',
  'algorithms',
  'engines',
  'evaluation',
  'personalization',
  'rounds',
  'outputs',
  'report',
  'experiment',
  'sweeps',
)
TENSORFLOW_FREE = ('validate', 'config', 'config_flags', 'sampling', 'privacy')
# The modules of these rooms that may use TensorFlow nevertheless.
WITH_TENSORFLOW = (
  'privacy.aggregators',
  'privacy.mechanisms',
  'privacy.queries',
)
TENSORFLOW = ('tensorflow', 'tf_keras', 'keras', 'jax', 'jaxlib')
KNOWS_EXPERIMENT = ('config', 'config_flags', 'experiment', 'sweeps')
VAGUE_NAMES = {'util', 'common', 'helper', 'base', 'manager'}
GLOBAL_SEEDS = {'set_seed', 'set_random_seed', 'set_global_generator'}

Tree = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Import:
  """One imported module, as an absolute dotted name.

  Attributes:
    late: Whether it happens inside a function.
  """

  name: str
  line: int
  late: bool


def read_tree(folder: pathlib.Path, package: str) -> dict[str, str]:
  """Returns module name -> source; a package is named like its folder."""
  tree = {}
  for path in sorted(folder.rglob('*.py')):
    parts = [package, *path.relative_to(folder).with_suffix('').parts]
    name = '.'.join(parts).removesuffix('.__init__')
    tree[name] = path.read_text(encoding='utf-8')
  return tree


def is_within(name: str, package: str) -> bool:
  """Returns whether a dotted name is a package or lies inside it."""
  return name == package or name.startswith(package + '.')


def room(module: str) -> str:
  """Returns the room of a module of the package; '' for the package itself."""
  return (module.split('.') + [''])[1]


def find_imports(module: str, tree: Tree) -> Iterator[Import]:
  """Yields what a module imports, `import_module('…')` included."""
  parsed = ast.parse(tree[module])
  late = {
    id(inner)
    for node in ast.walk(parsed)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for inner in ast.walk(node)
  }
  for node in ast.walk(parsed):
    for name in _imported_names(node, module, tree):
      yield Import(name, node.lineno, id(node) in late)


def _imported_names(node: ast.AST, module: str, tree: Tree) -> list[str]:
  if isinstance(node, ast.Import):
    return [alias.name for alias in node.names]
  if isinstance(node, ast.ImportFrom):
    source = node.module or ''
    if node.level:
      is_package = any(name.startswith(module + '.') for name in tree)
      drop = node.level - is_package
      parents = module.split('.')
      source = '.'.join(
        [*parents[: len(parents) - drop], *([source] if source else [])]
      )
    # `from package import name` names a module or something inside one.
    return [
      f'{source}.{alias.name}' if f'{source}.{alias.name}' in tree else source
      for alias in node.names
    ]
  if isinstance(node, ast.Call) and node.args:
    called = ast.unparse(node.func).rpartition('.')[-1]
    first = node.args[0]
    if called in ('import_module', '__import__') and isinstance(
      first, ast.Constant
    ):
      return [str(first.value)]
  return []


def reach(module: str, tree: Tree) -> dict[str, tuple[str, ...]]:
  """Returns everything that importing a module can load -> the way there.

  Python runs the packages around a module first, so they count as well.
  """
  ways = {module: (module,)}
  pending = [module]
  while pending:
    current = pending.pop()
    found = {i.name for i in find_imports(current, tree)}
    parent = current.rpartition('.')[0]
    for name in found | ({parent} if parent in tree else set()):
      if name not in ways:
        ways[name] = (*ways[current], name)
        if name in tree:
          pending.append(name)
  return ways


def wrong_direction(tree: Tree) -> list[str]:
  """Imports that point down the list, or into or out of an unknown room."""
  problems = []
  for module in tree:
    if not is_within(module, PACKAGE):
      continue
    own = room(module)
    if own and own not in ROOMS:
      problems.append(f'{module}: unknown room {own}; place it in ROOMS')
      continue
    for imported in find_imports(module, tree):
      where = f'{module}:{imported.line} imports {imported.name}'
      if is_within(imported.name, 'experiments'):
        problems.append(f'{where}, a binary or an experiment')
      if not is_within(imported.name, PACKAGE):
        continue
      other = room(imported.name)
      if not own:
        problems.append(f'{where}: the package itself imports nothing')
      elif other not in ROOMS:
        problems.append(f'{where}: no such room')
      elif ROOMS.index(other) > ROOMS.index(own):
        problems.append(f'{where}: that points down the list')
  return problems


def heavy_imports(tree: Tree) -> list[str]:
  """Ways from a TensorFlow-free module to TensorFlow, however late."""
  problems = []
  for module in tree:
    short = module.removeprefix(PACKAGE + '.')
    exempt = any(is_within(short, name) for name in WITH_TENSORFLOW)
    if room(module) not in TENSORFLOW_FREE or exempt:
      continue
    for name, way in reach(module, tree).items():
      top = name.split('.')[0]
      if top in TENSORFLOW or top.startswith('tensorflow'):
        problems.append(' -> '.join(way))
  return problems


def early_accounting(tree: Tree) -> list[str]:
  """Imports of dp_accounting, which takes a second, outside of functions."""
  return [
    f'{module}:{imported.line} imports {imported.name} early'
    for module in tree
    if room(module) != 'privacy'
    for imported in find_imports(module, tree)
    if is_within(imported.name, 'dp_accounting') and not imported.late
  ]


def whole_experiments(tree: Tree) -> list[str]:
  """Parameters and attributes annotated as a whole `config.Experiment`."""
  problems = []
  for module, source in tree.items():
    if not is_within(module, PACKAGE) or room(module) in KNOWS_EXPERIMENT:
      continue
    for node in ast.walk(ast.parse(source)):
      if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
        # A quoted annotation is a string constant: read what it quotes.
        text = ast.unparse(node.annotation).replace("'", ' ')
        names = ast.walk(ast.parse(text.strip(), mode='eval'))
        if any(
          isinstance(n, ast.Name | ast.Attribute)
          and (n.id if isinstance(n, ast.Name) else n.attr) == 'Experiment'
          for n in names
        ):
          problems.append(f'{module}:{node.lineno} takes a whole Experiment')
  return problems


def flag_reads(tree: Tree) -> list[str]:
  """Uses of absl flags in the package; `config_flags` may define them."""
  problems = []
  for module, source in tree.items():
    if not is_within(module, PACKAGE):
      continue
    parsed = ast.parse(source)
    defaults = {
      id(inner)
      for node in ast.walk(parsed)
      if isinstance(node, ast.arguments)
      for default in [*node.defaults, *filter(None, node.kw_defaults)]
      for inner in ast.walk(default)
    }
    for node in ast.walk(parsed):
      if isinstance(node, ast.ImportFrom | ast.Import):
        names = {alias.name for alias in node.names}
        source_module = getattr(node, 'module', None) or ''
        full = {f'{source_module}.{name}'.lstrip('.') for name in names}
        banned = {'absl.flags', 'absl.app', 'argparse', 'absl.flags.FLAGS'}
        if room(module) == 'config_flags':
          banned.remove('absl.flags')
        if full & banned:
          problems.append(
            f'{module}:{node.lineno} imports {min(full & banned)}'
          )
      name = getattr(node, 'attr', None) or getattr(node, 'id', None)
      if name == 'FLAGS' and id(node) not in defaults:
        problems.append(f'{module}:{node.lineno} reads FLAGS')
  return problems


def vague_names(tree: Tree) -> list[str]:
  """Modules whose name says nothing."""
  return [
    f'{module}: a module is a noun that says what it holds'
    for module in tree
    if any(
      word.removesuffix('s') in VAGUE_NAMES
      for part in module.split('.')
      for word in part.split('_')
    )
  ]


def global_seeds(tree: Tree) -> list[str]:
  """Calls that set a global seed, which would decide DP noise elsewhere."""
  problems = []
  for module, source in tree.items():
    for node in ast.walk(ast.parse(source)):
      if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        last = called.rpartition('.')[-1]
        numpys = called in ('np.random.seed', 'numpy.random.seed')
        if last in GLOBAL_SEEDS or numpys:
          problems.append(f'{module}:{node.lineno} calls {called}')
  return problems


CHECKS = (
  wrong_direction,
  heavy_imports,
  early_accounting,
  whole_experiments,
  flag_reads,
  vague_names,
  global_seeds,
)


@pytest.fixture(name='project', scope='module')
def fixture_project():
  return read_tree(ROOT / PACKAGE, PACKAGE) | read_tree(
    ROOT / 'experiments', 'experiments'
  )


@pytest.mark.parametrize('check', CHECKS)
def test_project_keeps_the_rule(project, check):
  assert check(project) == []


def test_project_is_read(project):
  assert {PACKAGE, f'{PACKAGE}.config', 'experiments.cli'} <= set(project)


def test_tensorflow_free_modules_load_without_it(project):
  """What `ast` cannot see: a library that loads TensorFlow by itself."""
  light = [
    module
    for module in project
    if room(module) in TENSORFLOW_FREE
    and is_within(module, PACKAGE)
    and not any(
      is_within(module, f'{PACKAGE}.{name}') for name in WITH_TENSORFLOW
    )
  ]
  program = f'import sys, {", ".join(light)}; print(*sys.modules)'
  done = subprocess.run(
    [sys.executable, '-c', program],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  loaded = {name.split('.')[0] for name in done.stdout.split()}
  assert not {name for name in loaded if name.startswith('tensorflow')}
  assert not loaded & {'keras', 'jax'}


def _tree(modules: Tree) -> dict[str, str]:
  """Returns a tree from names relative to the package."""
  return {
    name if is_within(name, 'experiments') else f'{PACKAGE}.{name}': source
    for name, source in modules.items()
  }


CLEAN = {PACKAGE: '"""Nothing."""'} | _tree(
  {
    'validate': 'import math',
    'config': 'from tff_pipeline import validate',
    'config_flags': (
      'from absl import flags\nfrom tff_pipeline import config\n'
      'def define(values: flags.FlagValues = flags.FLAGS): ...\n'
      'def apply(experiment: config.Experiment | None): ...'
    ),
    'privacy': '',
    'privacy.accounting': (
      'import dp_accounting\nfrom tff_pipeline import config'
    ),
    'privacy.mechanisms': (
      'import tensorflow as tf\nfrom tff_pipeline.privacy import accounting'
    ),
    'rounds': (
      'import numpy as np\nfrom tff_pipeline.privacy import mechanisms\n'
      'rng = np.random.default_rng([1, 2])'
    ),
    'experiment': (
      'from tff_pipeline import config, rounds\n'
      'def run(experiment: config.Experiment): import dp_accounting'
    ),
    'experiments.train': (
      'from absl import app, flags\nfrom tff_pipeline import experiment\n'
      'def main(): flags.FLAGS.rounds'
    ),
  }
)

# The check that must notice it, the changed module of CLEAN, its new source.
BROKEN = [
  (wrong_direction, 'config', 'from tff_pipeline import rounds'),
  (wrong_direction, 'config', 'from tff_pipeline.rounds import run'),
  (wrong_direction, 'rounds', 'import tff_pipeline.experiment as e'),
  (wrong_direction, 'rounds', 'def f(): from tff_pipeline import experiment'),
  (wrong_direction, 'privacy.accounting', 'from .. import rounds'),
  (wrong_direction, 'privacy', 'from ..rounds import run'),
  (wrong_direction, 'config', 'i.import_module("tff_pipeline.rounds")'),
  (wrong_direction, 'surprise', ''),
  (wrong_direction, 'surprise.inner', ''),
  (wrong_direction, 'rounds', 'from tff_pipeline.surprise import f'),
  (wrong_direction, 'experiment', 'from experiments import train'),
  (heavy_imports, 'config', 'import tensorflow'),
  (heavy_imports, 'privacy.accounting', 'import tensorflow_privacy as tfp'),
  (heavy_imports, 'validate', 'from tensorflow.python.util import nest'),
  (heavy_imports, 'config', 'def f(): import tensorflow_federated as tff'),
  (
    heavy_imports,
    'privacy.accounting',
    'from tff_pipeline.privacy import mechanisms',
  ),
  (heavy_imports, 'privacy', 'from tff_pipeline.privacy import mechanisms'),
  (heavy_imports, 'privacy.unplaced', 'import tensorflow'),
  (early_accounting, 'experiment', 'import dp_accounting.pld'),
  (early_accounting, 'experiments.train', 'from dp_accounting import rdp'),
  (whole_experiments, 'rounds', 'def run(c: config.Experiment): ...'),
  (whole_experiments, 'rounds', 'def run(*, e: c.Experiment | None): ...'),
  (whole_experiments, 'rounds', 'def run(c: "Experiment"): ...'),
  (whole_experiments, 'rounds', 'class Loop: of: config.Experiment'),
  (flag_reads, 'rounds', 'from absl import flags'),
  (flag_reads, 'rounds', 'from absl.flags import FLAGS'),
  (flag_reads, 'rounds', 'import argparse'),
  (flag_reads, 'config_flags', 'def given(): return flags.FLAGS.rounds'),
  (vague_names, 'data.utils', ''),
  (vague_names, 'experiments.helpers', ''),
  (vague_names, 'privacy.ledger_manager', ''),
  (vague_names, 'algorithms.base', ''),
  (global_seeds, 'rounds', 'np.random.seed(1)'),
  (global_seeds, 'experiments.train', 'def f(): tf.random.set_seed(1)'),
  (global_seeds, 'rounds', 'tf.keras.utils.set_random_seed(1)'),
]


@pytest.mark.parametrize('check', CHECKS)
def test_clean_tree_passes(check):
  assert check(CLEAN) == []


@pytest.mark.parametrize('check, module, source', BROKEN)
def test_broken_rule_is_noticed(check, module, source):
  changed = _tree({module: source})
  problems = check(CLEAN | changed)
  assert problems and all(next(iter(changed)) in text for text in problems)


def test_every_check_is_shown_to_fail():
  assert {check for check, _, _ in BROKEN} == set(CHECKS)


def test_package_itself_imports_nothing():
  tree = CLEAN | {PACKAGE: 'from tff_pipeline import config'}
  assert 'imports nothing' in wrong_direction(tree)[0]


def test_way_to_tensorflow_is_shown():
  tree = CLEAN | _tree({'privacy.accounting': 'from . import mechanisms'})
  assert heavy_imports(tree) == [
    f'{PACKAGE}.privacy.accounting -> {PACKAGE}.privacy.mechanisms'
    ' -> tensorflow'
  ]

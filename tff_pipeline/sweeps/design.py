"""Which runs a sweep has.

An arm is a set of leaves in place of the experiment's own; a run is an arm with
a seed. The seed decides partition, initial weights, cohorts and shuffles, so
all arms share them seed by seed. Every run draws a noise key of its own, unless
`privacy.noise_seed` is given.

An experiment file may hold a sweep as data:

  from tff_pipeline.sweeps import design

  SWEEP = design.grid({'privacy.noise_multiplier': (0.5, 1.0, 2.0)}, seeds=5)

There, a value of `None` leaves the leaf as the experiment has it: for leaves
that only some choices of their axis use.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import itertools
import pathlib
from typing import Any

from tff_pipeline import config
from tff_pipeline import config_flags
from tff_pipeline import validate
from tff_pipeline.outputs import run_directory

RECORD = 'sweep.json'
FORMAT = 1
_SEED = 'seed'
_NAMELESS = 'as_is'

Axis = Mapping[str, Sequence[Any]]
"""Dotted leaf -> values; leaves of one axis vary together."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
  """A grid over axes, with repetitions.

  Attributes:
    axes: The grid is their product. Several leaves in one axis are zipped.
    seeds: Number of seeds, counted up from the experiment's own.
  """

  axes: tuple[Axis, ...]
  seeds: int = 1

  def __post_init__(self) -> None:
    validate.check_number('seeds', self.seeds, at_least=1)
    for axis in self.axes:
      for leaf, values in axis.items():
        self._check(leaf, values, others=axis)
    names = [leaf for axis in self.axes for leaf in axis]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
      raise validate.error(
        f'sweep.{twice[0]}', expected='one axis', found='two axes'
      )
    if _SEED in names and self.seeds != 1:
      raise validate.error(
        'seeds', expected='no value beside --sweep.seed', found=self.seeds
      )

  def _check(self, leaf: str, values: Sequence[Any], *, others: Axis) -> None:
    """Refuses unknown leaves, no values, equal ones, and uneven lists."""
    flag = f'sweep.{leaf}'
    fields = config_flags.leaves()
    if leaf not in fields:
      raise validate.error(
        flag, expected='a leaf of the config', found='an unknown one'
      )
    checked = [
      None if v is None else config.checked_leaf(flag, fields[leaf], v)
      for v in values
    ]
    first = next(iter(others))
    if len(checked) != len(others[first]):
      raise validate.error(
        flag,
        expected=f'{len(others[first])} values, as many as --sweep.{first}, '
        'which it varies with',
        found=len(checked),
      )
    if not checked:
      raise validate.error(flag, expected='at least one value', found='none')
    if len(others) == 1 and len(set(checked)) < len(checked):
      raise validate.error(
        flag, expected='values that differ', found=tuple(checked)
      )


def grid(leaves: Axis, *, seeds: int = 1) -> Sweep:
  """Returns the sweep with every combination of these values."""
  axes = tuple({leaf: tuple(v)} for leaf, v in leaves.items())
  return Sweep(axes=axes, seeds=seeds)


def zipped(leaves: Axis, *, seeds: int = 1) -> Sweep:
  """Returns the sweep in which the lists are read in step."""
  axis = {leaf: tuple(values) for leaf, values in leaves.items()}
  return Sweep(axes=(axis,), seeds=seeds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned:
  """One run of a sweep.

  Attributes:
    arm: Name of its arm; a folder name.
    changes: Leaf -> value, the seed included.
    experiment: What runs.
  """

  arm: str
  changes: Mapping[str, Any]
  experiment: config.Experiment

  @property
  def directory(self) -> str:
    """Where it runs, below the sweep's directory."""
    return f'{self.arm}/seed={self.changes[_SEED]}'

  def arguments(self) -> list[str]:
    """Returns the changed leaves as flags."""
    return [f'--{leaf}={value}' for leaf, value in self.changes.items()]


def plan(
  sweep: Sweep,
  base: config.Experiment,
  *,
  given: Mapping[str, Any] | None = None,
) -> list[Planned]:
  """Returns all runs: every arm with the first seed, then with the next.

  So an interrupted sweep has whole repetitions of the comparison.

  Args:
    sweep: The sweep.
    base: The experiment that the leaves are changed in.
    given: Leaves that were given as flags, and must not be swept as well.

  Raises:
    UsageError: If an arm is not a valid experiment; the message names it.
  """
  for leaf in given or {}:
    if any(leaf in axis for axis in sweep.axes):
      raise validate.error(
        leaf, expected=f'no value beside --sweep.{leaf}', found=given[leaf]
      )
  seeds = range(base.seed, base.seed + sweep.seeds)
  return list(_plan(sweep, base, seeds))


def _plan(
  sweep: Sweep, base: config.Experiment, seeds: Sequence[int]
) -> Iterator[Planned]:
  short = _short_names([leaf for axis in sweep.axes for leaf in axis])
  for seed in seeds:
    for changes in _combinations(sweep.axes):
      named = {k: v for k, v in changes.items() if k != _SEED}
      name = ','.join(f'{short[k]}={_text(v)}' for k, v in named.items())
      whole = named | {_SEED: changes.get(_SEED, seed)}
      try:
        experiment = config_flags.apply(base, whole)
      except validate.UsageError as e:
        raise validate.UsageError(f'arm {name or _NAMELESS}: {e}') from e
      yield Planned(arm=name or _NAMELESS, changes=whole, experiment=experiment)


def _combinations(axes: Sequence[Axis]) -> Iterator[dict[str, Any]]:
  """Yields leaf -> value of each point of the grid, the last axis fastest."""
  columns = [
    [dict(zip(axis, row, strict=True)) for row in zip(*axis.values())]  # noqa: B905
    for axis in axes
  ]
  for parts in itertools.product(*columns):
    yield {
      leaf: value
      for part in parts
      for leaf, value in part.items()
      if value is not None
    }


def _short_names(leaves: Sequence[str]) -> dict[str, str]:
  """Returns the last parts of leaf names, where they tell them apart."""
  last = [leaf.rpartition('.')[-1] for leaf in leaves]
  return {
    leaf: name if last.count(name) == 1 else leaf
    for leaf, name in zip(leaves, last, strict=True)
  }


def _text(value: Any) -> str:
  text = str(value)
  if isinstance(value, float):
    text = f'{value:g}' if float(f'{value:g}') == value else repr(value)
  return ''.join(c if c.isalnum() or c in '._-+:' else '_' for c in text)


def record(
  runs: Sequence[Planned], *, command: Sequence[str]
) -> dict[str, Any]:
  """Returns what `sweep.json` holds."""
  return {
    'format': FORMAT,
    'command': list(command),
    'arms': [
      {
        'directory': run.directory,
        'changes': dict(run.changes),
        'config': config.to_dict(run.experiment),
      }
      for run in runs
    ],
  }


def check_same(folder: pathlib.Path, runs: Sequence[Planned]) -> None:
  """Refuses a directory that holds another sweep, or something else.

  More arms or seeds than before are fine: they are added.

  Raises:
    UsageError: If it is refused.
  """
  path = folder / RECORD
  if not path.exists():
    others = sorted(p.name for p in folder.glob('*')) if folder.exists() else []
    others = [name for name in others if name not in ('lock', 'report')]
    if others:
      raise validate.error(
        'output_dir',
        expected='a new or empty directory, or that of the same sweep',
        found=f'{folder} with {others[0]} in it',
        remedy='Choose another directory',
      )
    return
  before = run_directory.read_json(path)
  planned = {run.directory: config.to_dict(run.experiment) for run in runs}
  for arm in before['arms']:
    if planned.get(arm['directory']) != arm['config']:
      raise validate.error(
        'output_dir',
        expected=f'the sweep that {folder} was started with, or one with more '
        'arms or seeds',
        found=f'one without, or with another config of, {arm["directory"]}',
        remedy='Choose another directory',
      )

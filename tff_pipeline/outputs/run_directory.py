"""Ownership of a run directory, its record of the config, and atomic files."""

from collections.abc import Mapping
import contextlib
import fcntl
import json
import math
import os
import pathlib
from typing import Any

from tff_pipeline import validate

FORMAT = 1
"""Version of the layout; a newer one is refused."""

_CONFIG = 'config.json'
_LOCK = 'lock'
_PARTIAL = '.partial'


def write_text(path: pathlib.Path, text: str, *, mode: int = 0o644) -> None:
  """Writes a file so that a reader sees all of it or what was there before."""
  partial = path.with_name(path.name + _PARTIAL)
  descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
  with open(descriptor, 'w', encoding='utf-8') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)
  sync(path.parent)


def sync(path: pathlib.Path) -> None:
  """Makes a file's content, or a folder's names, survive a power cut."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def write_json(path: pathlib.Path, values: Mapping[str, Any]) -> None:
  """Writes strict JSON atomically; infinities become the strings of `str`."""
  text = json.dumps(_strict(values), indent=2, allow_nan=False)
  write_text(path, text + '\n')


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Returns what `write_json` wrote; infinities stay strings."""
  return json.loads(path.read_text(encoding='utf-8'))


def _strict(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {str(k): _strict(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [_strict(v) for v in value]
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)
  return value


class RunDirectory:
  """A directory that belongs to one run; hold it with `with`.

  Nothing is created or written before `claim`: a run that cannot start leaves
  no trace.
  """

  def __init__(self, path: str | os.PathLike[str]):
    """Checks that `path` is free, or a run's.

    Raises:
      UsageError: If it holds something else, a newer format or an unreadable
        record, or if it cannot be written.
    """
    self.path = pathlib.Path(path)
    self._lock_file = None
    self.record = self._read_record()

  def _read_record(self) -> dict[str, Any] | None:
    """Returns what `claim` wrote, or `None` if the directory is free."""
    self._check_writable()
    try:
      text = (self.path / _CONFIG).read_text(encoding='utf-8')
    except FileNotFoundError:
      self._check_free()
      return None
    try:
      record = json.loads(text)
      found = record['format']
    except (ValueError, KeyError, TypeError) as e:
      raise validate.error(
        'output_dir',
        expected='a directory of this program',
        found=f'{self.path} with an unreadable {_CONFIG} ({e!r})',
      ) from e
    if found != FORMAT:
      raise validate.error(
        'output_dir',
        expected=f'a run directory of format {FORMAT}',
        found=f'format {found} in {self.path}',
        remedy='Use the version that wrote it, or another directory',
      )
    return record

  def _check_writable(self) -> None:
    obstacle = _obstacle(self.path.absolute())
    if obstacle:
      raise validate.error(
        'output_dir', expected='a directory to write to', found=obstacle
      )

  def _check_free(self) -> None:
    if not self.path.exists():
      return
    ours = {_LOCK, _CONFIG + _PARTIAL}
    foreign = sorted(p.name for p in self.path.iterdir() if p.name not in ours)
    if foreign:
      raise validate.error(
        'output_dir',
        expected='a new or empty directory, or that of the same run',
        found=f'{self.path} with {foreign[0]} in it',
        remedy='Choose another directory',
      )

  def check_same(self, config: Mapping[str, Any]) -> None:
    """Raises `UsageError`, naming the leaves, if the run has another config."""
    if self.record is None:
      return
    ours, theirs = flat(config), flat(self.record['config'])
    differing = [
      f'--{leaf} was {theirs.get(leaf, "unset")}, now {ours.get(leaf, "unset")}'
      for leaf in sorted(ours.keys() | theirs.keys())
      if ours.get(leaf) != theirs.get(leaf)
    ]
    if differing:
      raise validate.error(
        'output_dir',
        expected=f'the config that {self.path} was started with',
        found='another: ' + '; '.join(differing),
        remedy='Choose another directory, or the old values',
      )

  def claim(self, record: Mapping[str, Any]) -> None:
    """Creates the directory, locks it, and writes its record if it is new.

    Raises:
      UsageError: If another process is running in this directory.
    """
    self.path.mkdir(parents=True, exist_ok=True)
    self._lock()
    if self.record is None:
      # Another process may have claimed it since the check.
      self._check_free()
      write_json(self.path / _CONFIG, {'format': FORMAT, **record})
      self.record = {'format': FORMAT, **record}

  def _lock(self) -> None:
    """Takes the operating system's lock, which a dead process does not keep."""
    if self._lock_file is not None:
      return
    file = open(self.path / _LOCK, 'a')
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
      file.close()
      raise validate.error(
        'output_dir',
        expected='a directory that no other process is running in',
        found=f'{self.path}, which is locked',
      ) from e
    self._lock_file = file

  def __enter__(self) -> 'RunDirectory':
    """Locks a directory that is a run's already.

    Raises:
      UsageError: If another process is running in it.
    """
    if self.record is not None:
      self._lock()
    return self

  def __exit__(self, *exception: Any) -> None:
    if self._lock_file is not None:
      with contextlib.suppress(OSError):
        self._lock_file.close()


def _obstacle(path: pathlib.Path) -> str:
  """Returns why nothing can be written at `path`; empty if it can."""
  try:
    path.lstat()
  except (FileNotFoundError, NotADirectoryError):
    return _obstacle(path.parent)
  except OSError as e:
    return f'{path} ({e.strerror})'
  if not path.is_dir():
    return f'{path}, which is not a directory'
  if not os.access(path, os.W_OK | os.X_OK):
    return f'{path}, which cannot be written to'
  return ''


def flat(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns nested values under dotted names.

  >>> flat({'client': {'epochs': 3}, 'rounds': 40})
  {'client.epochs': 3, 'rounds': 40}
  """
  found = {}
  for name, value in values.items():
    if isinstance(value, Mapping):
      found |= flat(value, prefix + name + '.')
    else:
      found[prefix + name] = value
  return found

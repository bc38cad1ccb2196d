"""What a killed process leaves of a folder, at every boundary of a write.

`kill -9` keeps what the operating system was told, and nothing else. So a copy
of the folder, taken before and after every call that changes files, is what a
kill at that moment leaves; one run gives all of them. A write that was cut
short is added: the new part of a file, by half.
"""

import builtins
from collections.abc import Iterator
import contextlib
import dataclasses
import io
import os
import pathlib
import shutil
from typing import Any

import pytest
from tensorflow.python.lib.io import _pywrap_file_io

Files = dict[str, tuple[int, bytes | None]]

_CALLS = {
  os: (
    *('open', 'write', 'replace', 'rename', 'unlink', 'remove', 'rmdir'),
    *('mkdir', 'fsync', 'truncate', 'ftruncate'),
  ),
  _pywrap_file_io: (
    *('RenameFile', 'DeleteRecursively', 'DeleteFile'),
    *('CreateDir', 'RecursivelyCreateDir'),
  ),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Image:
  """A folder at one moment.

  Attributes:
    moment: The call that it was taken before or after.
    files: Path below the folder -> mode and content; `None` for a folder.
    note: What the test knew at that moment.
  """

  moment: str
  files: Files
  note: Any

  def write(self, folder: pathlib.Path) -> None:
    """Makes `folder`, which need not exist, hold this image alone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, (mode, content) in self.files.items():
      path = folder / name
      if content is None:
        path.mkdir()
      else:
        path.write_bytes(content)
        path.chmod(mode)


def read(folder: pathlib.Path) -> Files:
  """Returns what a folder holds now."""
  while True:
    try:
      return _read_once(folder)
    except (FileNotFoundError, NotADirectoryError):
      pass  # Another thread deletes old checkpoints meanwhile.


def _read_once(folder: pathlib.Path) -> Files:
  return {
    os.fspath(path.relative_to(folder)): (
      path.stat().st_mode & 0o777,
      None if path.is_dir() else path.read_bytes(),
    )
    for path in sorted(folder.rglob('*'))
  }


class Camera:
  """Takes an image whenever the folder has changed at a boundary."""

  def __init__(self, folder: pathlib.Path):
    self.images: list[Image] = []
    self.note: Any = None
    self._folder = folder
    self._busy = False

  def look(self, moment: str) -> None:
    """Takes an image, unless nothing has changed."""
    if self._busy:
      return
    self._busy = True
    try:
      files = read(self._folder) if self._folder.exists() else {}
    finally:
      self._busy = False
    if not self.images or files != self.images[-1].files:
      self.images.append(Image(moment, files, self.note))

  def around(self, name: str, call: Any) -> Any:
    """Returns `call` with a look before and after it."""

    def watched(*args: Any, **kwargs: Any) -> Any:
      self.look(f'before {name}')
      try:
        return call(*args, **kwargs)
      finally:
        self.look(f'after {name}')

    return watched

  def opened(self, call: Any) -> Any:
    """Returns `open` with a look around what is done with its files."""
    watched = self.around('open', call)

    def open_(file: Any, mode: str = 'r', *args: Any, **kwargs: Any) -> Any:
      if not set(mode) & set('wax+'):
        return call(file, mode, *args, **kwargs)
      return _File(watched(file, mode, *args, **kwargs), self)

    return open_


class _File:
  """An open file, watched."""

  def __init__(self, file: Any, camera: Camera):
    self._file = file
    self._camera = camera

  def __getattr__(self, name: str) -> Any:
    found = getattr(self._file, name)
    if name in ('write', 'truncate', 'flush', 'close'):
      return self._camera.around(name, found)
    return found

  def __enter__(self) -> '_File':
    self._file.__enter__()
    return self

  def __exit__(self, *exception: Any) -> None:
    self._camera.around('close', self._file.__exit__)(*exception)


@contextlib.contextmanager
def taken_of(folder: pathlib.Path) -> Iterator[Camera]:
  """Watches everything that this process writes into `folder`."""
  camera = Camera(folder)
  with pytest.MonkeyPatch.context() as patch:
    for module, names in _CALLS.items():
      for name in names:
        patch.setattr(module, name, camera.around(name, getattr(module, name)))
    for module in (io, builtins):
      patch.setattr(module, 'open', camera.opened(module.open))
    yield camera
    camera.look('at the end')


def torn(images: list[Image]) -> Iterator[Image]:
  """Yields images in which a write or a deletion was cut short in its middle.

  What got its name by renaming was whole before; it is left out.
  """
  for before, after in zip(images, images[1:], strict=False):
    yield from _torn_writes(before, after)
    yield from _torn_deletion(before, after)


def _torn_writes(before: Image, after: Image) -> Iterator[Image]:
  whole = _contents(before)
  for name, (mode, content) in after.files.items():
    old = before.files.get(name, (mode, b''))[1]
    if not content or old is None or content in whole:
      continue
    if content.startswith(old):
      middle = (len(old) + len(content)) // 2
      files = after.files | {name: (mode, content[:middle])}
      yield Image(f'{after.moment}, {name} cut short', files, after.note)


def _torn_deletion(before: Image, after: Image) -> Iterator[Image]:
  left = _contents(after)
  gone = [
    name
    for name, (_, content) in before.files.items()
    if name not in after.files and content is not None and content not in left
  ]
  if len(gone) > 1:
    half = gone[: len(gone) // 2]
    files = {k: v for k, v in before.files.items() if k not in half}
    yield Image(f'{before.moment}, {half[0]} deleted', files, after.note)


def _contents(image: Image) -> set[bytes | None]:
  return {content for _, content in image.files.values()}

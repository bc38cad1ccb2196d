"""Finding a data set's file in the data folder, or downloading it there.

A download is written beside its place and moved there when it is whole, so that
an interrupted one never looks like a file.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import hashlib
import http.client
import lzma
import os
import pathlib
import tempfile
import urllib.error
import urllib.parse
import urllib.request

import tqdm

from tff_pipeline import validate

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
  """A file of a data set.

  Attributes:
    name: Path below the data folder, where it is downloaded to.
    url: Where it comes from; a URL that ends in .lzma is decompressed.
      `None` if nobody serves it.
    sha256: Of what the URL serves, if it is known. Only a download is held to
      it: a copy that was packed anew is as good, its content is checked.
    also_at: Other paths below the data folder, such as Keras's.
  """

  name: str
  url: str | None
  sha256: str | None = None
  also_at: tuple[str, ...] = ()


def find(file: File, data_dir: pathlib.Path) -> pathlib.Path | None:
  """Returns where the file is, or `None`."""
  for name in (file.name, *file.also_at):
    path = data_dir / name
    if path.exists():
      return path
  return None


def require(file: File, data_dir: pathlib.Path) -> pathlib.Path:
  """Returns where the file is, downloading it if need be.

  Raises:
    UsageError: If it is not there and cannot be downloaded; says which file
      to put where.
  """
  found = find(file, data_dir)
  if found is not None:
    return found
  if file.url is None:
    raise _missing(file, data_dir, 'nobody serves it')
  path = data_dir / file.name
  try:
    _download(file, path)
  except (OSError, http.client.HTTPException, lzma.LZMAError) as e:
    reason = getattr(e, 'reason', None) or e
    raise _missing(file, data_dir, f'the download failed: {reason}') from e
  return path


def _missing(
  file: File, data_dir: pathlib.Path, reason: str
) -> validate.UsageError:
  source = f', from {file.url},' if file.url else ''
  unpacked = ' decompressed' if file.url and file.url.endswith('.lzma') else ''
  return validate.error(
    'data_dir',
    expected=f'a folder with {file.name}',
    found=f'{data_dir} without it, and {reason}',
    remedy=f'Put the file{source}{unpacked} at {data_dir / file.name}, point '
    '--data_dir at the folder that has it, or use --task.source=stand_in for '
    'a smoke run',
  )


def _download(file: File, path: pathlib.Path) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  digest = hashlib.sha256()
  decompress = lzma.LZMADecompressor() if file.url.endswith('.lzma') else None
  with _whole_or_nothing(path) as out:
    for chunk in _chunks(file.url):
      digest.update(chunk)
      out.write(decompress.decompress(chunk) if decompress else chunk)
    if decompress and not decompress.eof:
      raise OSError('it ended too early')
    if file.sha256 and digest.hexdigest() != file.sha256:
      raise OSError(
        f'sha256 {digest.hexdigest()} instead of the known {file.sha256}'
      )


@contextlib.contextmanager
def _whole_or_nothing(path: pathlib.Path) -> Iterator[object]:
  # A name of its own: two runs may download at the same time.
  handle, partial = tempfile.mkstemp(
    dir=path.parent, prefix=f'{path.name}.', suffix='.partial'
  )
  try:
    with os.fdopen(handle, 'wb') as out:
      yield out
    os.replace(partial, path)
  except BaseException:
    os.unlink(partial)
    raise


def _chunks(url: str) -> Iterator[bytes]:
  with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as stream:
    length = int(stream.headers.get('content-length') or 0)
    name = urllib.parse.urlparse(url).path.rpartition('/')[-1]
    received = 0
    with tqdm.tqdm(
      total=length or None,
      desc=f'Downloading {name}',
      unit='B',
      unit_scale=True,
    ) as bar:
      while chunk := stream.read(_CHUNK):
        received += len(chunk)
        bar.update(len(chunk))
        yield chunk
  if length and received != length:
    raise OSError(f'it ended after {received} of {length} bytes')

"""Errors about files: all are the operating system's, and all name the file."""

from collections.abc import Iterator
import contextlib
import os

import tensorflow as tf


@contextlib.contextmanager
def os_errors(path: str | os.PathLike[str]) -> Iterator[None]:
  """Raises `OSError`, naming `path`, where something cannot write or read."""
  try:
    yield
  except tf.errors.OpError as e:
    raise OSError(f'{os.fspath(path)}: {e.message}') from e
  except OSError as e:
    if e.filename is not None or e.errno is None:
      raise
    raise OSError(e.errno, e.strerror, os.fspath(path)) from e

"""TensorFlow's errors about files, as the operating system's."""

from collections.abc import Iterator
import contextlib
import os

import tensorflow as tf


@contextlib.contextmanager
def os_errors(path: str | os.PathLike[str]) -> Iterator[None]:
  """Raises `OSError`, naming `path`, where TensorFlow cannot write or read."""
  try:
    yield
  except tf.errors.OpError as e:
    raise OSError(f'{os.fspath(path)}: {e.message}') from e

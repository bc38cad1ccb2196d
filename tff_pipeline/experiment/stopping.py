"""What ends a run early, and what it is told."""

from collections.abc import Callable, Iterator
import contextlib
import logging
import pathlib
import signal
import threading
import types

_log = logging.getLogger(__name__)

_KILLING = {
  signal.SIGINT: signal.default_int_handler,
  signal.SIGTERM: signal.SIG_DFL,
}


class Interrupted(Exception):
  """The run was asked to stop, and can be resumed; the message says how."""


class Failed(Exception):
  """The run cannot go on; the message says why, and what to do.

  The machine failed it (a full disk, a worker that was killed), or training
  diverged.
  """


@contextlib.contextmanager
def failures(folder: pathlib.Path) -> Iterator[None]:
  """Says what a failure of the machine means for the run in `folder`."""
  from tff_pipeline.engines import engine as engines

  try:
    yield
  except (OSError, engines.EngineError) as e:
    raise Failed(
      f'{e}. What was saved in {folder} is safe: mend this, and run the same '
      'command again to continue.'
    ) from e


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
  """Turns the first SIGINT or SIGTERM into a request; a second one kills."""
  requested = threading.Event()

  def request(number: int, frame: types.FrameType | None) -> None:
    del frame
    requested.set()
    for name, handler in before.items():
      # A shell lets the jobs in its background ignore SIGINT.
      ignored = handler is signal.SIG_IGN
      signal.signal(name, _KILLING[name] if ignored else handler)
    _log.info(
      '%s: finishing this round; once more to stop at once.',
      signal.Signals(number).name,
    )

  before = {}
  if threading.current_thread() is threading.main_thread():
    for name in (signal.SIGINT, signal.SIGTERM):
      before[name] = signal.signal(name, request)
  try:
    yield requested.is_set
  finally:
    for name, handler in before.items():
      signal.signal(name, handler)

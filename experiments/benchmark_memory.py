"""Resident memory of this process and of a worker, from Linux's /proc."""

import pathlib
from typing import Any


def resident() -> float:
  """Returns what this process has resident now; MB."""
  return _field('self', 'VmRSS')


class Peak:
  """Measures the highest resident memory while it is entered.

  Attributes:
    megabytes: Of this process, plus the worker's, if there is one.
  """

  def __init__(self, worker: int | None = None):
    """Initializes.

    Args:
      worker: Process id of a worker whose memory counts too.
    """
    self._processes = ['self'] + ([str(worker)] if worker else [])
    self.megabytes = 0.0

  def __enter__(self) -> 'Peak':
    for process in self._processes:
      # 5 sets the peak back to what is resident now; see proc(5).
      pathlib.Path('/proc', process, 'clear_refs').write_text('5')
    return self

  def __exit__(self, *exception: Any) -> None:
    self.megabytes = sum(_field(p, 'VmHWM') for p in self._processes)


def _field(process: str, name: str) -> float:
  status = pathlib.Path('/proc', process, 'status').read_text()
  fields = dict(line.split(':', 1) for line in status.splitlines())
  return int(fields[name].split()[0]) / 1024

"""Runs of a sweep on a Ray cluster, which an optional extra installs.

The machines share the sweep's directory and this checkout, under the same
paths: a task starts the same command there that `Local` would start here.
"""

from collections.abc import Mapping
import dataclasses
import os
import pathlib
import signal
import subprocess
from typing import Any

from tff_pipeline import validate
from tff_pipeline.sweeps import execution

HERE = 'local'
"""An address: start a cluster on this machine alone."""


class Ray:
  """Starts jobs as Ray tasks; Ray decides where and when."""

  def __init__(
    self,
    address: str,
    *,
    threads: int,
    logs: pathlib.Path,
    cwd: pathlib.Path,
  ):
    """Joins a cluster.

    Args:
      address: Of its head, such as `auto` or `10.0.0.1:6379`; or `HERE`.
      threads: Cores of each job.
      logs: Folder of what jobs print.
      cwd: Where their command is to be run.

    Raises:
      UsageError: If Ray is not installed or the cluster cannot be reached.
    """
    try:
      import ray
    except ImportError as e:
      raise validate.error(
        'ray',
        expected="Ray: pip install 'ray==2.52.1', the extra `ray` of "
        'pyproject.toml',
        found='none',
      ) from e
    try:
      ray.init(
        address=None if address == HERE else address,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
      )
    except (ConnectionError, OSError, ValueError) as e:
      raise validate.error(
        'ray', expected='the address of a cluster', found=address
      ) from e
    self._ray = ray
    self._logs = logs
    self._cwd = cwd
    self._environment = execution.environment(threads)
    self._task = ray.remote(num_cpus=threads, max_retries=0)(_work)

  def __call__(self, job: execution.Job) -> 'RayHandle':
    """Submits a job."""
    self._logs.mkdir(parents=True, exist_ok=True)
    reference = self._task.remote(
      job.command,
      self._environment,
      os.fspath(self._cwd),
      os.fspath(execution.log_path(self._logs.absolute(), job)),
    )
    return RayHandle(self._ray, reference)

  def has_room(self, running: Mapping[str, execution.Handle]) -> bool:
    """Returns True: Ray queues what does not fit."""
    del running
    return True

  def close(self) -> None:
    """Leaves the cluster; one that was started here ends."""
    self._ray.shutdown()


@dataclasses.dataclass(frozen=True, eq=False)
class RayHandle:
  """A submitted task."""

  ray: Any
  reference: Any

  def poll(self) -> int | None:
    """Returns the exit status of its command, or `None` while it waits."""
    ready, _ = self.ray.wait([self.reference], timeout=0)
    if not ready:
      return None
    try:
      return self.ray.get(self.reference)
    except self.ray.exceptions.TaskCancelledError:
      return -signal.SIGINT
    except self.ray.exceptions.RayError:
      return 1  # A machine or its worker died.

  def interrupt(self) -> None:
    """Cancels the task, which asks its command to save and stop."""
    self.ray.cancel(self.reference, force=False)

  def resident_bytes(self) -> int:
    """Returns 0: it is not on this machine."""
    return 0


def _work(
  command: tuple[str, ...], environment: dict[str, str], cwd: str, log_path: str
) -> int:
  """Runs a command on the machine of the task; a cancel becomes SIGINT."""
  with open(log_path, 'ab') as log:
    process = subprocess.Popen(
      command,
      cwd=cwd,
      env=dict(os.environ) | environment,
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )
    try:
      return process.wait()
    except BaseException:  # Ray cancels by KeyboardInterrupt.
      process.send_signal(signal.SIGINT)
      process.wait()
      raise

"""Runs of a sweep side by side, each in a process of its own.

A run is a command that resumes where it was stopped and exits with 0 when it
has finished, so continuing a sweep is to start it again: runs that have
finished are not started.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import ctypes
import dataclasses
import enum
import fcntl
import functools
import os
import pathlib
import signal
import subprocess
import threading
import time
import types
from typing import Protocol

import psutil

from tff_pipeline import validate
from tff_pipeline.outputs import run_directory

LEAST_BYTES = 1.5 * 2**30
"""Memory that has to be free before another run starts."""

_INTERRUPTED_STATUS = 130
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_PAUSE_SECONDS = 0.2


class State(enum.StrEnum):
  """How a run of a sweep stands."""

  WAITING = 'waiting'
  RUNNING = 'running'
  FINISHED = 'finished'
  FAILED = 'failed'
  INTERRUPTED = 'interrupted'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """A run to be executed.

  Attributes:
    name: For people, and of its log file.
    command: Trains it, or continues it.
    folder: Its run directory.
    rounds: Planned rounds.
  """

  name: str
  command: tuple[str, ...]
  folder: pathlib.Path
  rounds: int

  @property
  def is_finished(self) -> bool:
    """Whether the run directory says so."""
    path = self.folder / 'summary.json'
    return (
      path.exists() and run_directory.read_json(path)['status'] == 'finished'
    )

  def rounds_done(self) -> int:
    """Returns the number of rows so far."""
    try:
      text = (self.folder / 'metrics.csv').read_bytes()
    except OSError:
      return 0
    return max(0, text.count(b'\n') - 1)


class Handle(Protocol):
  """A job that was started."""

  def poll(self) -> int | None:
    """Returns the exit status, or `None` while it is running."""

  def interrupt(self) -> None:
    """Asks it to save and stop; a second time, to stop at once."""

  def resident_bytes(self) -> int:
    """Returns the memory that it takes on this machine."""


class Launcher(Protocol):
  """Starts jobs somewhere."""

  def __call__(self, job: Job) -> Handle:
    """Starts a job.

    Raises:
      OSError: If its command cannot be started.
    """

  def has_room(self, running: Mapping[str, Handle]) -> bool:
    """Returns whether one more job fits beside those that are running."""


@dataclasses.dataclass(frozen=True)
class Local:
  """Starts jobs as processes on this machine.

  They end when this process does: after a kill, nothing runs on unseen.

  Attributes:
    threads: Of TensorFlow, for each.
    logs: Folder of what they print.
    cwd: Where their command is to be run.
  """

  threads: int
  logs: pathlib.Path
  cwd: pathlib.Path

  def __call__(self, job: Job) -> 'LocalHandle':
    """Starts a job."""
    self.logs.mkdir(parents=True, exist_ok=True)
    with open(log_path(self.logs, job), 'ab') as log:
      process = subprocess.Popen(
        job.command,
        cwd=self.cwd,
        env=dict(os.environ) | environment(self.threads),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is passed on once, by us.
        preexec_fn=functools.partial(_end_with, os.getpid()),
      )
    return LocalHandle(process)

  def has_room(self, running: Mapping[str, Handle]) -> bool:
    """Returns whether memory is left for one more; the first always fits."""
    if not running:
      return True
    largest = max(handle.resident_bytes() for handle in running.values())
    return psutil.virtual_memory().available > max(LEAST_BYTES, largest)


@dataclasses.dataclass(frozen=True, eq=False)
class LocalHandle:
  """A process on this machine."""

  process: subprocess.Popen

  def poll(self) -> int | None:
    """Returns the exit status, or `None` while it is running."""
    return self.process.poll()

  def interrupt(self) -> None:
    """Sends it SIGINT."""
    with contextlib.suppress(ProcessLookupError):
      self.process.send_signal(signal.SIGINT)

  def resident_bytes(self) -> int:
    """Returns the memory of the process."""
    try:
      return psutil.Process(self.process.pid).memory_info().rss
    except psutil.Error:
      return 0


def environment(threads: int) -> dict[str, str]:
  """Returns the variables that limit TensorFlow to so many threads."""
  return {
    'TF_NUM_INTRAOP_THREADS': str(threads),
    'TF_NUM_INTEROP_THREADS': str(threads),
    'OMP_NUM_THREADS': str(threads),
    # Several processes share a GPU.
    'TF_FORCE_GPU_ALLOW_GROWTH': 'true',
  }


def log_path(logs: pathlib.Path, job: Job) -> pathlib.Path:
  """Returns the file of what a job prints."""
  return logs / (job.name.replace('/', ',') + '.log')


def _end_with(parent: int) -> None:
  libc = ctypes.CDLL(None, use_errno=True)
  libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
  if os.getppid() != parent:  # It died before the call above.
    os._exit(1)


@contextlib.contextmanager
def owned(folder: pathlib.Path) -> Iterator[None]:
  """Keeps other processes from running the same sweep.

  Raises:
    UsageError: If one does.
  """
  folder.mkdir(parents=True, exist_ok=True)
  with open(folder / 'lock', 'a') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
      raise validate.error(
        'output_dir',
        expected='a directory that no other sweep is running in',
        found=f'{folder}, which is locked',
      ) from e
    yield


def side_by_side(jobs: int, *, cores: int, free_bytes: float) -> int:
  """Returns how many runs at a time the machine has cores and memory for.

  >>> side_by_side(15, cores=8, free_bytes=6 * 2**30)
  4
  """
  return max(1, min(jobs, cores, int(free_bytes // LEAST_BYTES)))


@dataclasses.dataclass(eq=False)
class Progress:
  """How a sweep stands; `view` of `run` is called with it.

  Attributes:
    jobs: All, in order.
    states: By name.
    rounds_before: Rounds that were done before this process started.
    started: `time.monotonic()` then.
    statuses: Exit statuses of those that failed.
  """

  jobs: Sequence[Job]
  states: dict[str, State]
  rounds_before: int
  started: float
  statuses: dict[str, int] = dataclasses.field(default_factory=dict)

  @property
  def rounds(self) -> tuple[int, int]:
    """Rounds that are done, and planned; a run may end before its plan."""
    done = {job.name: job.rounds_done() for job in self.jobs}
    planned = (
      done[job.name] if self.states[job.name] is State.FINISHED else job.rounds
      for job in self.jobs
    )
    return sum(done.values()), sum(planned)

  def number(self, state: State) -> int:
    """Returns how many jobs are in a state."""
    return sum(s is state for s in self.states.values())

  def seconds_left(self) -> float | None:
    """Returns the time left at the speed so far; `None` before any round."""
    done, planned = self.rounds
    now = done - self.rounds_before
    if now <= 0:
      return None
    seconds = time.monotonic() - self.started
    failed = sum(
      job.rounds - job.rounds_done()
      for job in self.jobs
      if self.states[job.name] is State.FAILED
    )
    return seconds / now * max(0, planned - done - failed)


def run(
  jobs: Sequence[Job],
  *,
  processes: int,
  launch: Launcher,
  view: Callable[[Progress], None],
) -> Progress:
  """Runs all jobs that have not finished, some at a time.

  A job that fails is noted, and the others go on. SIGINT or SIGTERM asks the
  running ones to save and stop, and starts no more.

  Args:
    jobs: In the order in which they start.
    processes: How many at a time.
    launch: Starts one.
    view: Called several times a second.

  Returns:
    How every job ended.
  """
  progress = Progress(
    jobs=jobs,
    states={
      job.name: State.FINISHED if job.is_finished else State.WAITING
      for job in jobs
    },
    rounds_before=sum(job.rounds_done() for job in jobs),
    started=time.monotonic(),
  )
  waiting = [j for j in jobs if progress.states[j.name] is State.WAITING]
  running: dict[str, Handle] = {}
  with _stop_requests() as requests:
    passed_on = 0
    while running or (waiting and not requests):
      started = False
      if requests:
        for _ in range(len(requests) - passed_on):
          for handle in running.values():
            handle.interrupt()
        passed_on = len(requests)
      elif waiting and len(running) < processes and launch.has_room(running):
        _start(waiting.pop(0), launch, running, progress)
        started = True
      _collect(running, progress)
      view(progress)
      if not started:
        time.sleep(_PAUSE_SECONDS)
  view(progress)
  return progress


def _start(
  job: Job, launch: Launcher, running: dict[str, Handle], progress: Progress
) -> None:
  try:
    running[job.name] = launch(job)
    progress.states[job.name] = State.RUNNING
  except OSError as e:
    progress.states[job.name] = State.FAILED
    progress.statuses[job.name] = e.errno or 1


def _collect(running: dict[str, Handle], progress: Progress) -> None:
  """Notes how jobs ended that have ended."""
  by_name = {job.name: job for job in progress.jobs}
  for name, handle in list(running.items()):
    status = handle.poll()
    if status is None:
      continue
    del running[name]
    if status == 0 and by_name[name].is_finished:
      progress.states[name] = State.FINISHED
    elif status in (_INTERRUPTED_STATUS, -signal.SIGINT):
      progress.states[name] = State.INTERRUPTED
    else:
      progress.states[name] = State.FAILED
      progress.statuses[name] = status


@contextlib.contextmanager
def _stop_requests() -> Iterator[list[int]]:
  """Yields a list that grows by one with every SIGINT or SIGTERM."""
  requests: list[int] = []

  def request(number: int, frame: types.FrameType | None) -> None:
    del frame
    requests.append(number)

  before = {}
  if threading.current_thread() is threading.main_thread():
    for name in (signal.SIGINT, signal.SIGTERM):
      before[name] = signal.signal(name, request)
  try:
    yield requests
  finally:
    for name, handler in before.items():
      signal.signal(name, handler)

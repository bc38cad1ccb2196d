"""TFF's own C++ runtime: the reference that other engines are held equal to.

TFF starts its worker itself, but leaves it running when Python exits, lets it
inherit stdout (so that a pipe never closes), and hands it `sys.stdout`, which
fails where that has no file descriptor. So the worker is started here: it dies
with its parent however that ends, is deaf to the terminal's Ctrl-C, and writes
to nobody's pipe. The worker serves unauthenticated gRPC on all interfaces, and
has no flag to change that: whoever can reach the port can execute TensorFlow
graphs. Use this engine behind a firewall.
"""

from collections.abc import Mapping
import ctypes
import functools
import os
import pathlib
import signal
import subprocess
import tempfile
import time
from typing import Any

import grpc
import numpy as np
import portpicker
import tensorflow_federated as tff

from tff_pipeline.engines import engine
from tff_pipeline.engines import feeds
from tff_pipeline.engines import state_channel

_STARTUP_SECONDS = 60.0
_MAX_MESSAGE_BYTES = 2 * 1000 * 1000 * 1000
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_LIBC = ctypes.CDLL(None, use_errno=True)


class WorkerError(engine.EngineError):
  """The worker did not start or is gone."""


def _die_with(parent: int) -> None:
  _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
  if os.getppid() != parent:  # It died before the call above.
    os._exit(1)


class Worker:
  """TFF's worker process, and the stub that talks to it."""

  def __init__(self, environment: Mapping[str, str] | None = None) -> None:
    """Starts it.

    Args:
      environment: Its environment variables; unset means those of this process.

    Raises:
      WorkerError: If it does not start.
    """
    self._log = tempfile.TemporaryFile()
    port = portpicker.pick_unused_port()
    binary = pathlib.Path(tff.__file__).parent / 'data' / 'worker_binary'
    self._process = subprocess.Popen(
      [binary, f'--port={port}'],
      env=environment,
      stdin=subprocess.DEVNULL,
      stdout=self._log,
      stderr=self._log,
      start_new_session=True,
      preexec_fn=functools.partial(_die_with, os.getpid()),
    )
    channel = grpc.insecure_channel(
      f'localhost:{port}',
      [
        ('grpc.max_receive_message_length', _MAX_MESSAGE_BYTES),
        ('grpc.max_send_message_length', _MAX_MESSAGE_BYTES),
        # A proxy in the environment would get this machine's own traffic.
        ('grpc.enable_http_proxy', 0),
      ],
    )
    self._channel = channel
    self.stub = tff.framework.RemoteExecutorGrpcStub(channel)
    try:
      self._wait_until_ready()
    except BaseException:
      self.stop()
      raise

  def _wait_until_ready(self) -> None:
    deadline = time.monotonic() + _STARTUP_SECONDS
    while not self.stub.is_ready:
      self.check_running()
      if time.monotonic() > deadline:
        raise WorkerError(
          f'the TFF worker was not ready after {_STARTUP_SECONDS:.0f} s'
          + self._last_words()
        )
      time.sleep(0.02)

  def check_running(self) -> None:
    """Raises `WorkerError` if the worker has ended."""
    status = self._process.poll()
    if status is not None:
      raise WorkerError(
        f'the TFF worker (process {self.pid}) ended with status {status}'
        + self._last_words()
      )

  def _last_words(self) -> str:
    self._log.seek(0)
    lines = self._log.read().decode(errors='replace').strip().splitlines()
    return ': ' + ' '.join(lines[-3:]) if lines else ''

  @property
  def pid(self) -> int:
    """Process id of the worker."""
    return self._process.pid

  def stop(self) -> None:
    """Ends the worker; may be called again."""
    self._channel.close()
    if self._process.poll() is None:
      self._process.kill()
      self._process.wait()
    self._log.close()


def _context(worker: Worker) -> tff.framework.SyncExecutionContext:
  def stack(cardinalities):
    # TFF tries again for ever when it cannot reach a worker, with a new stack.
    worker.check_running()
    cardinalities.setdefault(tff.CLIENTS, 0)
    executor = tff.framework.RemoteExecutor(worker.stub)
    executor.set_cardinalities(cardinalities)
    return executor

  return tff.framework.SyncExecutionContext(
    executor_fn=tff.framework.ResourceManagingExecutorFactory(stack),
    compiler_fn=tff.backends.native.desugar_and_transform_to_native,
    transform_args=tff.tensorflow.transform_args,
    transform_result=tff.tensorflow.transform_result,
  )


class TffRuntime:
  """Runs rounds on TFF's C++ executor."""

  def __init__(
    self,
    process: tff.learning.templates.LearningProcess,
    feed: feeds.Feed,
    *,
    environment: Mapping[str, str] | None = None,
  ):
    """Initializes the engine; entering it starts the worker.

    Args:
      process: Any learning process.
      feed: Gives the data of a cohort.
      environment: See `Worker`.
    """
    self._process = process
    self._feed = feed
    self.channel = state_channel.find(process)
    self._environment = environment
    self._worker = None
    self._context = None

  def __enter__(self) -> 'TffRuntime':
    self._worker = Worker(self._environment)
    self._context = _context(self._worker)
    return self

  def __exit__(self, *exception: Any) -> None:
    self._context = None
    self._worker.stop()

  @property
  def worker_pid(self) -> int:
    """Process id of the worker, for those who must see it end."""
    return self._worker.pid

  def initialize(self) -> Any:
    """Returns the initial server state."""
    with tff.framework.get_context_stack().install(self._context):
      return self._process.initialize()

  def round(
    self,
    state: Any,
    *,
    round_num: int,
    clients: np.ndarray,
    states: state_channel.Leaves | None = None,
  ) -> engine.Round:
    """Runs one round over a cohort, which may be empty."""
    cohort = self._feed.cohort(round_num=round_num, clients=clients)
    if self.channel is not None:
      rows = self.channel.tensors(states, len(clients))
      cohort = cohort._replace(states=rows)
    datasets = [self._feed.dataset(cohort, i) for i in range(len(clients))]
    with tff.framework.get_context_stack().install(self._context):
      output = self._process.next(state, datasets)
    metrics, rows = state_channel.split(self.channel, output.metrics)
    return engine.Round(state=output.state, metrics=metrics, client_states=rows)

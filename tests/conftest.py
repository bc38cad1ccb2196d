"""What tests of several folders ask for, and what ends with each of them."""

from collections.abc import Iterator
import pathlib
import shutil
import sys

import pytest


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
  """Names bytes by argument and place: a packed file holds the time."""
  return argname if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def ended_global_seed() -> Iterator[None]:
  """Ends TensorFlow's global seed with the test that set it.

  Left behind, it would decide draws of later tests that should be random.
  """
  yield
  context = sys.modules.get('tensorflow.python.eager.context')
  if context is not None and context.global_seed() is not None:
    context.set_global_seed(None)


@pytest.fixture
def without_reports() -> Iterator[None]:
  """No page is drawn: for tests of runs that say nothing of it."""
  from tests import small_runs

  with small_runs.without_reports():
    yield


@pytest.fixture(scope='session')
def whole_run(tmp_path_factory) -> pathlib.Path:
  """An uninterrupted run of `small_runs.build()`: six rounds, saved every two.

  Not to be written to.
  """
  from tests import small_runs
  from tff_pipeline import experiment

  folder = tmp_path_factory.mktemp('runs') / 'whole'
  with small_runs.cached_parts(), small_runs.without_reports():
    experiment.run(small_runs.build(), folder)
  return folder


@pytest.fixture(scope='session')
def crashed_in_4(tmp_path_factory) -> pathlib.Path:
  """The same, crashed in round 4: checkpoint 2, rows to 3, ledger to 4."""
  from tests import small_runs

  folder = tmp_path_factory.mktemp('runs') / 'crashed'
  with small_runs.cached_parts(), small_runs.without_reports():
    small_runs.crashed(small_runs.build(), folder, in_round=4)
  return folder


@pytest.fixture
def crashed_run(crashed_in_4, tmp_path) -> pathlib.Path:
  """A copy of it, to go on with or to damage."""
  return shutil.copytree(crashed_in_4, tmp_path / 'crashed')


@pytest.fixture(scope='session')
def tff_worker() -> Iterator[object]:
  from tff_pipeline.engines import tff_runtime

  worker = tff_runtime.Worker()
  yield worker
  worker.stop()


@pytest.fixture
def on_tff_runtime(tff_worker) -> Iterator[None]:
  """Whatever TFF computation the test calls runs on TFF's own runtime."""
  import tensorflow_federated as tff

  from tff_pipeline.engines import tff_runtime

  context = tff_runtime._context(tff_worker)
  with tff.framework.get_context_stack().install(context):
    yield

"""One TFF worker for all tests that execute TFF computations."""

from collections.abc import Iterator

import pytest


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

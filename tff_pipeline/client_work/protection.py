"""What a privacy mechanism does on a client before anything leaves it."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline.client_work import training_loop


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Release:
  """What happens to a finished update on the client.

  Attributes:
    call: (update, element) -> (update, counts, what the client keeps); the
      update is finite.
    counts: Names of what it counts; they become train metrics.
    keeps: Names of what the client keeps for its next participation, each like
      an update; it gets them back in the `client_state` of its element.
  """

  call: Callable[
    [Any, training_loop.Element], tuple[Any, Mapping[str, Any], Mapping]
  ]
  counts: tuple[str, ...] = ()
  keeps: tuple[str, ...] = ()


GradientBuilder = Callable[
  [tff.learning.models.FunctionalModel], training_loop.GradientFn
]
"""Makes the function that a step descends along."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Protection:
  """The client's part of a mechanism.

  Attributes:
    gradient: Builds what a step descends along.
    release: What happens to the finished update.
    extra_spec: What both need in the client's element besides its data.
  """

  gradient: GradientBuilder
  release: Release
  extra_spec: Mapping[str, tf.TensorSpec]


UNCHANGED = Release(call=lambda update, element: (update, {}, {}))
UNPROTECTED = Protection(
  gradient=training_loop.batch_gradient, release=UNCHANGED, extra_spec={}
)

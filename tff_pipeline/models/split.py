"""A functional model of which a part is shared, and the rest stays local.

The split model trains its shared weights only: they are its trainable ones, and
the local ones are what TFF calls non-trainable. So whatever a learning process
does with a model (send an update, average, clip, noise) it can do with the
shared weights alone, by type. Wherever nobody has local weights of his own, the
initial ones stand for them.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline.models import functional
from tff_pipeline.models import layers


class SplitModel(tff.learning.models.FunctionalModel):
  """A functional model whose trainable weights are the shared ones.

  Attributes:
    whole: The model with all weights trainable.
    is_local: Of each weight of `whole`, whether it is local.
  """

  def __init__(
    self, whole: functional.LayeredModel, *, is_local: Sequence[bool]
  ):
    """Splits the model.

    Args:
      whole: A model all of whose weights are trainable.
      is_local: Of each of its weights, whether it is local.
    """
    self.whole = whole
    self.is_local = tuple(is_local)

    @tf.function
    def predict_on_batch(weights: Any, x: Any, training: Any = True) -> Any:
      return whole.predict_on_batch(
        (self.merge(*weights), ()), x, training=training
      )

    super().__init__(
      initial_weights=self.divide(whole.initial_weights[0]),
      predict_on_batch_fn=predict_on_batch,
      loss_fn=whole.loss,
      metrics_fns=(
        whole.initialize_metrics_state,
        whole.update_metrics_state,
        whole.finalize_metrics,
      ),
      input_spec=whole.input_spec,
    )

  @property
  def has_local(self) -> bool:
    """Whether anything is local."""
    return any(self.is_local)

  def merge(self, shared: Iterable[Any], local: Iterable[Any]) -> tuple:
    """Returns the weights of `whole` in their order."""
    parts = (iter(shared), iter(local))
    return tuple(next(parts[is_local]) for is_local in self.is_local)

  def divide(self, weights: Sequence[Any]) -> tuple[tuple, tuple]:
    """Returns the shared and the local ones of the weights of `whole`."""
    parts = ([], [])
    for weight, is_local in zip(weights, self.is_local, strict=True):
      parts[is_local].append(weight)
    return tuple(parts[False]), tuple(parts[True])

  def swapped(self) -> 'SplitModel':
    """Returns the model that trains the local weights, the shared ones held."""
    return SplitModel(
      self.whole, is_local=[not is_local for is_local in self.is_local]
    )


def build(model: functional.LayeredModel, local_layers: str) -> SplitModel:
  """Returns the model with these layers local.

  Args:
    model: From `functional.build`.
    local_layers: See `layers.choose`.

  Raises:
    UsageError: If the model has no such layers.
  """
  chosen = layers.choose(model.layers, local_layers)
  local = {number for layer in chosen for number in layer.weights}
  return SplitModel(
    model,
    is_local=[i in local for i in range(len(model.initial_weights[0]))],
  )


def whole_weights(
  model: tff.learning.models.FunctionalModel,
  weights: tff.learning.models.ModelWeights,
) -> tff.learning.models.ModelWeights:
  """Returns a model's weights as those of the whole model, split or not."""
  if not isinstance(model, SplitModel):
    return weights
  merged = model.merge(weights.trainable, weights.non_trainable)
  return tff.learning.models.ModelWeights(merged, ())

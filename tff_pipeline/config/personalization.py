"""How the model is measured on clients that make it theirs."""

import dataclasses
from typing import ClassVar

from tff_pipeline.config import choices
from tff_pipeline.config import leaves

_FINE_TUNING = ('name', (choices.PersonalizationName.FINE_TUNING,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Personalization(leaves.Record):
  """Clients that are held out of training, and what they do after it."""

  section: ClassVar[str] = 'personalization'

  name: choices.PersonalizationName = leaves.leaf(
    'Whether some clients are held out, and adapt the trained model to a part '
    'of their data, to be measured on the rest; see docs/algorithms.md.',
    default=choices.PersonalizationName.NONE,
  )
  validation_clients: int | None = leaves.leaf(
    'Held-out clients that choose how long to adapt. They are no part of the '
    'population.',
    used_by=_FINE_TUNING,
    required=True,
    at_least=1,
  )
  test_clients: int | None = leaves.leaf(
    'Further held-out clients, which are reported.',
    used_by=_FINE_TUNING,
    required=True,
    at_least=1,
  )
  epochs: int | None = leaves.leaf(
    'Most epochs that a client adapts for; the best length up to it, 0 '
    'included, is chosen on the validation clients.',
    used_by=_FINE_TUNING,
    required=True,
    at_least=1,
  )
  learning_rate: float | None = leaves.leaf(
    'Learning rate of the SGD that adapts.',
    used_by=_FINE_TUNING,
    required=True,
    above=0.0,
  )
  batch_size: int | None = leaves.leaf(
    'Examples in a mini-batch; unset means --client.batch_size.',
    used_by=_FINE_TUNING,
    at_least=1,
  )

  @property
  def held_out(self) -> int:
    """Clients that never train."""
    return (self.validation_clients or 0) + (self.test_clients or 0)

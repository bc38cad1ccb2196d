"""What dishonest clients do, and how many there are."""

import dataclasses
from typing import ClassVar

from tff_pipeline.config import choices
from tff_pipeline.config import leaves

_Name = choices.AttackName
ON_LABELS = (_Name.LABEL_FLIP, _Name.BACKDOOR)
ON_UPDATES = (_Name.BACKDOOR, _Name.SIGN_FLIP, _Name.SCALED_UPDATE)
_ALL = tuple(name for name in _Name if name is not _Name.NONE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack(leaves.Record):
  """A simulated attack, to measure what it does."""

  section: ClassVar[str] = 'attack'

  name: choices.AttackName = leaves.leaf(
    'What dishonest clients do: train on flipped labels, plant a backdoor, '
    'send their update reversed, or send it enlarged.',
    default=_Name.NONE,
  )
  share: float | None = leaves.leaf(
    'Share of the population that is dishonest, in all rounds; who it is '
    'follows --seed.',
    used_by=('name', _ALL),
    required=True,
    at_least=0.0,
    at_most=1.0,
  )
  scale: float | None = leaves.leaf(
    'Factor on the update of a dishonest client; 1 leaves its length.',
    used_by=('name', ON_UPDATES),
    required=True,
    above=0.0,
  )
  source_label: int | None = leaves.leaf(
    'Label whose examples dishonest clients give the target label.',
    used_by=('name', (_Name.LABEL_FLIP,)),
    required=True,
    at_least=0,
  )
  target_label: int | None = leaves.leaf(
    'Label that the attack wants the model to answer.',
    used_by=('name', ON_LABELS),
    required=True,
    at_least=0,
  )
  triggered_share: float | None = leaves.leaf(
    "Share of a dishonest client's examples that get the trigger and the "
    'target label.',
    used_by=('name', (_Name.BACKDOOR,)),
    required=True,
    above=0.0,
    at_most=1.0,
  )

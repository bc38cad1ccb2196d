"""How updates and broadcasts are encoded."""

import dataclasses
from typing import ClassVar

from tff_pipeline.config import choices
from tff_pipeline.config import leaves

_Name = choices.CompressionName


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compression(leaves.Record):
  """Lossy encodings, on the client before anything else happens to an update.

  Under privacy an update is compressed first and clipped and noised then.
  """

  section: ClassVar[str] = 'compression'

  name: choices.CompressionName = leaves.leaf(
    'Encoding of the updates.', default=_Name.NONE
  )
  bits: int | None = leaves.leaf(
    'Bits of a quantized entry.',
    used_by=('name', (_Name.QUANTIZATION,)),
    required=True,
    at_least=1,
    at_most=16,
  )
  rounding: choices.Rounding | None = leaves.leaf(
    'To the nearest level, or to one of the two around it by a coin that makes '
    'the mean right.',
    used_by=('name', (_Name.QUANTIZATION,)),
    required=True,
  )
  rotation: choices.Rotation | None = leaves.leaf(
    'Random rotation before quantizing, undone afterwards; it evens out the '
    'entries. Unset means none.',
    used_by=('name', (_Name.QUANTIZATION,)),
  )
  kept_share: float | None = leaves.leaf(
    'Share of the entries of an update that is sent.',
    used_by=('name', (_Name.TOP_K, _Name.RANDOM_K)),
    required=True,
    above=0.0,
    at_most=1.0,
  )
  error_feedback: choices.ErrorFeedback | None = leaves.leaf(
    'Whether a client keeps what its encoded update lost, and adds it to the '
    'next one. Unset means off.',
    used_by=('name', (_Name.QUANTIZATION, _Name.TOP_K, _Name.RANDOM_K)),
  )
  broadcast_bits: int | None = leaves.leaf(
    'Bits of an entry of the model as it is sent to clients, quantized with '
    'stochastic rounding; unset sends 32-bit floats.',
    at_least=1,
    at_most=16,
  )

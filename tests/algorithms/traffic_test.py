"""Bytes by hand: 6 x 5 + 5 + 5 x 4 + 4 = 59 weights in four tensors."""

import dataclasses

import pytest

from tests import small_models
from tests.algorithms import cohorts
from tff_pipeline import config
from tff_pipeline.algorithms import traffic
from tff_pipeline.models import split as splits

_MODEL = 59


@pytest.mark.parametrize(
  'algorithm, client, compression, up, down',
  [
    ({}, {}, {}, 4 * _MODEL + 4, 4 * _MODEL),
    (
      {'name': 'mime_lite'},
      {'momentum': 0.9},
      {},
      8 * _MODEL + 4,
      # Momentum as long as the model, learning rate and beta.
      8 * _MODEL + 8,
    ),
    ({'name': 'scaffold'}, {}, {}, 8 * _MODEL + 4, 8 * _MODEL + 4),
    (
      {'name': 'fed_dyn', 'regularization_strength': 0.1},
      {},
      {},
      4 * _MODEL + 4,
      4 * _MODEL,
    ),
    (
      {},
      {},
      {'name': 'top_k', 'kept_share': 0.1, 'error_feedback': 'on'},
      (6 * (32 + 6) + 32 + 7) // 8,
      4 * _MODEL,
    ),
    (
      {},
      {},
      {'name': 'top_k', 'kept_share': 0.1},
      (6 * (32 + 6) + 32 + 7) // 8,
      4 * _MODEL,
    ),
    (
      {},
      {},
      {
        'name': 'quantization',
        'bits': 4,
        'rounding': 'nearest',
        'broadcast_bits': 8,
      },
      (4 * _MODEL + 4 * 64 + 32 + 7) // 8,
      _MODEL + 4 * 8,
    ),
  ],
  ids=[
    'fed_avg',
    'mime_lite',
    'scaffold',
    'fed_dyn',
    'error_feedback',
    'top_k',
    'quantized',
  ],
)
def test_bytes_by_hand(algorithm, client, compression, up, down):
  found = traffic.count(
    small_models.build(small_models.dense),
    algorithm=config.Algorithm(**algorithm),
    client=dataclasses.replace(cohorts.CLIENT, **client),
    compression=config.Compression(**compression),
  )
  assert found == traffic.Traffic(bytes_up=up, bytes_down=down)


def test_of_a_split_model_the_shared_weights_are_sent_both_ways():
  found = traffic.count(
    splits.build(small_models.build(small_models.dense), '1'),
    algorithm=config.Algorithm(name='fed_per', local_layers='1'),
    client=cohorts.CLIENT,
    compression=config.Compression(),
  )
  shared = 6 * 5 + 5
  assert found == traffic.Traffic(
    bytes_up=4 * shared + 4, bytes_down=4 * shared
  )

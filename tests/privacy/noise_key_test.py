import time

import numpy as np
import pytest

from tff_pipeline.privacy import noise_key

_KEY = (123, -456)


def test_drawn_keys_differ():
  assert len({noise_key.draw() for _ in range(100)}) == 100


def test_text_gives_the_key_back():
  for _ in range(20):
    key = noise_key.draw()
    assert noise_key.from_text(noise_key.to_text(key)) == key
  extremes = (-(2**63), 2**63 - 1)
  assert noise_key.from_text(noise_key.to_text(extremes)) == extremes


@pytest.mark.parametrize('text', ['', '12', '0' * 31, '0' * 34, 'g' * 32])
def test_other_text_is_refused(text):
  with pytest.raises(ValueError):
    noise_key.from_text(text)


def test_fingerprint_tells_keys_apart_and_does_not_hold_them():
  keys = [noise_key.draw() for _ in range(100)]
  fingerprints = {noise_key.fingerprint(key) for key in keys}
  assert len(fingerprints) == 100
  assert not any(
    noise_key.to_text(key)[:8] in noise_key.fingerprint(key) for key in keys
  )


def test_client_keys_depend_on_key_round_and_client():
  clients = np.arange(50)
  found = {
    tuple(row)
    for key in (_KEY, (-456, 123), noise_key.from_seed(0))
    for round_num in (1, 2, 11)
    for row in noise_key.for_clients(key, round_num, clients)
  }
  assert len(found) == 3 * 3 * 50


def test_digits_of_round_and_client_do_not_run_together():
  first = noise_key.for_clients(_KEY, 1, np.array([11]))
  second = noise_key.for_clients(_KEY, 11, np.array([1]))
  assert not np.array_equal(first, second)


def test_client_keys_do_not_depend_on_who_else_takes_part():
  together = noise_key.for_clients(_KEY, 4, np.array([8, 2, 5]))
  assert together.shape == (3, 2) and together.dtype == np.int64
  alone = noise_key.for_clients(_KEY, 4, np.array([2]))
  np.testing.assert_array_equal(together[1], alone[0])


def test_nobody_needs_no_keys():
  found = noise_key.for_clients(_KEY, 1, np.array([], np.int64))
  assert found.shape == (0, 2) and found.dtype == np.int64


def test_client_keys_are_what_they_always_were():
  """Computed with hashlib by hand; another value is another run."""
  key = noise_key.from_seed(7)
  found = noise_key.for_clients(key, 3, np.array([5]))
  assert found.tolist() == [list(_by_hand(key, 3, 5))]


def _by_hand(key, round_num, client):
  import hashlib
  import struct

  text = struct.pack('<qq', *key).hex() + f'/round {round_num}/client {client}'
  return struct.unpack('<qq', hashlib.sha256(text.encode()).digest()[:16])


def test_a_thousand_clients_take_milliseconds():
  clients = np.arange(1000)
  start = time.process_time()
  noise_key.for_clients(_KEY, 1, clients)
  assert time.process_time() - start < 0.1  # 2 ms measured.

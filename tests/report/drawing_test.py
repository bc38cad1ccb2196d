import itertools

from hypothesis import given
from hypothesis import strategies as st
import pytest

from tff_pipeline.report import drawing


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_labels_keep_their_order_and_their_distance(wanted):
  places = drawing._apart(sorted(wanted), 0.05, low=0.0, high=1.0)
  gaps = [b - a for a, b in itertools.pairwise(places)]
  assert all(gap >= 0.05 - 1e-9 for gap in gaps)
  assert max(places) <= 1.0 + 1e-9


def test_labels_with_room_stay_where_they_are():
  assert drawing._apart([0.1, 0.5], 0.05, low=0.0, high=1.0) == [0.1, 0.5]


@pytest.mark.parametrize(
  'low, high, expected',
  [
    (0.8, 30, [1, 2, 5, 10, 20]),
    (0.02, 4000, [0.1, 1, 10, 100, 1000]),
    (1.5, 1.9, []),
  ],
)
def test_ticks_of_epsilon(low, high, expected):
  assert drawing.epsilon_ticks(low, high) == pytest.approx(expected)


def test_series_differ_without_color():
  looks = [drawing.look(i) for i in range(7)]
  shapes = [(look['marker'], str(look['linestyle'])) for look in looks]
  assert len(set(shapes)) == 7


def _luminance(color):
  def linear(part):
    value = int(part, 16) / 255
    return (
      value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
    )

  red, green, blue = (linear(color[i : i + 2]) for i in (1, 3, 5))
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize('color', drawing.SERIES)
def test_series_stand_out_on_paper(color):
  """Graphics need a contrast of 3 to 1 (WCAG 2.1, 1.4.11)."""
  contrast = (_luminance(drawing.PAPER) + 0.05) / (_luminance(color) + 0.05)
  assert contrast >= 3.0

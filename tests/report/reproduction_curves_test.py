"""Curves of reproductions: which panels, which lines, which marks."""

import matplotlib.figure
import pytest

from tests import synthetic_runs
from tff_pipeline import config
from tff_pipeline.report import drawing
from tff_pipeline.report import reading
from tff_pipeline.report import reproduction_curves
from tff_pipeline.report import reproductions

NOISE = 'privacy.noise_multiplier'


@pytest.fixture(name='runs')
def fixture_runs(tmp_path):
  """Two noises with two seeds; a curve ends at its accuracy."""
  for noise, seed, accuracy in (
    (1.0, 0, 0.8),
    (1.0, 1, 0.9),
    (2.0, 0, 0.5),
    (2.0, 1, 0.5),
  ):
    synthetic_runs.write(
      tmp_path / f'{noise}' / f'{seed}',
      synthetic_runs.build(
        privacy=synthetic_runs.privacy(noise_multiplier=noise), seed=seed
      ),
      accuracy=accuracy,
    )
  return reading.collect([tmp_path]).runs


def _figure(*rows, runs, **claim):
  return reproduction_curves.figure(
    reproductions.Paper(
      name='x',
      documentation='',
      claim=config.Claim(epsilon=1.0, source='table 1', rows=rows, **claim),
      runs=runs,
    )
  )


def _draw(figure):
  """Returns the axes that a figure fills, by title."""
  canvas = matplotlib.figure.Figure()
  panels = canvas.subplots(1, figure.panels, squeeze=False).ravel().tolist()
  figure.draw(panels, drawing.Shape.WIDE)
  return {
    axes.get_title(loc='left') or axes.get_title(): axes for axes in panels
  }


def _row(name, noise, **leaves):
  return config.Row(name=name, arm={NOISE: noise}, **leaves)


def test_rows_of_one_beginning_share_a_panel(runs):
  figure = _figure(
    _row('(0, 0), little', 1.0), _row('(0, 0), much', 2.0), runs=runs
  )
  panels = _draw(figure)
  assert list(panels) == ['(0, 0)']
  little, much = (line.get_ydata()[-1] for line in panels['(0, 0)'].lines)
  assert (little, much) == pytest.approx((0.85, 0.5))


def test_lines_of_one_name_look_alike_in_all_panels(runs):
  first, second = _draw(
    _figure(
      _row('a, little', 1.0),
      _row('a, much', 2.0),
      _row('b, much', 2.0),
      runs=runs,
    )
  ).values()
  assert first.lines[1].get_color() == second.lines[0].get_color()
  assert first.lines[0].get_color() != first.lines[1].get_color()
  assert first.get_ylim() == second.get_ylim()


def test_what_was_published_is_marked_where_it_belongs(runs):
  (axes,) = _draw(
    _figure(
      _row('final', 1.0, published=0.7),
      _row('first', 2.0, target=0.4, published=3),
      runs=runs,
    )
  ).values()
  marks = [
    (line.get_xdata()[0], line.get_ydata()[0])
    for line in axes.lines
    if line.get_markerfacecolor() == 'none'
  ]
  assert marks == [(synthetic_runs.ROUNDS, 0.7), (3, 0.4)]
  assert axes.get_ylim() == pytest.approx((0.28, 1.0))


def test_marks_of_accuracies_are_on_no_other_axis(runs):
  figure = _figure(
    _row('final', 1.0, published=0.7), runs=runs, metric='test_loss'
  )
  (axes,) = _draw(figure).values()
  assert len(axes.lines) == 1


def test_rows_that_were_not_run_are_left_out(runs):
  rows = _row('a, little', 1.0), _row('b, none', 3.0)
  assert list(_draw(_figure(*rows, runs=runs))) == ['a']
  assert _figure(*rows, runs=()) is None


def test_panels_go_into_rows_of_three(runs, tmp_path):
  figure = _figure(*(_row(f'{i}, a', 1.0) for i in range(4)), runs=runs)
  assert (figure.panels, figure.columns) == (4, 3)
  (path,) = drawing.save(figure, tmp_path, kinds=['png'])
  assert path == tmp_path / 'x.png'
  assert path.read_bytes().startswith(b'\x89PNG')

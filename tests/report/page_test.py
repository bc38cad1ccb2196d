"""What pages say, and that they need nothing but themselves."""

import html.parser
import json
import re

from matplotlib import figure as mpl_figure
import pytest

from tests import synthetic_runs
from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.report import drawing
from tff_pipeline.report import page
from tff_pipeline.report import reading
from tff_pipeline.report import run_contents
from tff_pipeline.report import sweep_contents

_VOID = {'meta', 'link', 'br', 'img', 'hr', 'input'}


class _Checker(html.parser.HTMLParser):
  """Collects references and ids, and checks that elements are closed."""

  def __init__(self):
    super().__init__()
    self.ids, self.references, self.open = [], [], []

  def handle_starttag(self, tag, attrs):
    if tag not in _VOID:
      self.open.append(tag)
    self._note(attrs)

  def handle_startendtag(self, tag, attrs):
    self._note(attrs)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def _note(self, attrs):
    for name, value in attrs:
      if name == 'id':
        self.ids.append(value)
      if name in ('src', 'href', 'xlink:href', 'srcset', 'action'):
        self.references.append(value)


def _check(text):
  checker = _Checker()
  checker.feed(text)
  assert checker.open == []
  assert len(checker.ids) == len(set(checker.ids))
  for reference in checker.references:
    assert reference.startswith(('#', 'data:')), reference
    if reference.startswith('#'):
      assert reference[1:] in checker.ids
  assert '<script' not in text and '@import' not in text
  outside = re.sub(r'xmlns(:xlink)?="[^"]*"', '', text)
  outside = re.sub(r'href="data:[^"]*"', '', outside)
  assert 'http' not in outside
  return text


def _run(tmp_path, name='run', *, options=None, **changes):
  wanted = synthetic_runs.build(**changes)
  path = synthetic_runs.write(tmp_path / name, wanted, **(options or {}))
  return reading.read(path)


def _html(run):
  return _check(page.to_html(run_contents.build(run)))


def test_page_of_a_run(tmp_path):
  columns = {
    'clip_norm': 0.5,
    'unnoised_clipped_share': 0.3,
    'released_update_norm': 1.0,
    'noise_norm': 0.8,
    'round_seconds': 0.5,
    'evaluate_seconds': 0.1,
    'price_seconds': 0.1,
    'whole_seconds': 0.9,
    'unnoised_client_train_accuracy_mean': 0.7,
    'unnoised_client_train_accuracy_p10': 0.5,
    'unnoised_client_train_accuracy_p90': 0.9,
    'unnoised_client_train_accuracy_worst_decile': 0.4,
  }
  sent = {'bytes_up': 9644, 'bytes_down': 9640, 'expected_megabytes': 1.5}
  run = _run(tmp_path, options={'columns': columns, 'communication': sent})
  built = run_contents.build(run)
  assert [figure.name for figure in built.figures] == [
    'learning',
    'clipping',
    'signal_to_noise',
    'clients',
    'communication',
    'time',
  ]
  text = _html(run)
  assert 'on the training examples of each client' in text
  assert 'gets 9,640 bytes and sends 9,644' in text
  assert run.statement['sentence'] in text
  for part in ('assumptions', 'not_covered'):
    for entry in run.statement[part]:
      assert entry in text
  assert 'un-noised, not covered' in text
  for card in built.cards:
    if card.label.startswith('Held-out'):
      assert 'at ε = ' in card.beside and 'δ = 0.001' in card.beside


def test_megabytes_grow_with_the_rounds_to_the_total(tmp_path):
  sent = {'bytes_up': 1, 'bytes_down': 1, 'expected_megabytes': 3.0}
  run = _run(tmp_path, options={'communication': sent})
  (figure,) = [
    f for f in run_contents.build(run).figures if f.name == 'communication'
  ]
  axes = mpl_figure.Figure().subplots()
  figure.draw([axes], drawing.Shape.WIDE)
  (line,) = axes.get_lines()
  rounds = run.evaluated['round']
  assert list(line.get_xdata()) == pytest.approx(list(rounds / 6 * 3.0))


def test_panels_without_columns_are_left_out(tmp_path):
  figures = run_contents.build(_run(tmp_path)).figures
  assert [figure.name for figure in figures] == ['learning']


def test_infinity_is_shown_as_such(tmp_path):
  run = _run(tmp_path, privacy=config.no_privacy())
  built = run_contents.build(run)
  assert 'at ε = ∞' in built.cards[0].beside
  text = _html(run)
  assert 'ε = ∞ in every round' in text
  assert 'No differential privacy: epsilon is infinite' in text


def test_extrapolated_epsilon_is_labelled(tmp_path):
  run = _run(
    tmp_path,
    privacy=synthetic_runs.privacy(
      population=6000, noise_cohort_size=600, delta=1e-5
    ),
  )
  built = run_contents.build(run)
  assert all(
    '(extrapolated)' in card.beside + card.value
    for card in built.cards
    if 'ε' in card.label + card.beside
  )
  assert any('extrapolated' in warning for warning in built.warnings)
  svg = drawing.inline_svg(built.figures[0], drawing.Shape.WIDE)
  assert 'ε, extrapolated' in svg
  text = _html(run)
  assert run.statement['as_run']['sentence'] in text


def test_unfinished_run_says_so(tmp_path):
  run = _run(tmp_path, options={'rounds': 2})
  built = run_contents.build(run)
  assert '2 of 6 rounds' in built.warnings[0]
  _html(run)


def test_run_without_rounds_has_a_page(tmp_path):
  _html(_run(tmp_path, options={'rounds': 0}))


def test_words_of_others_are_escaped(tmp_path):
  run = _run(tmp_path, name='<b>x</b>')
  assert '<b>x' not in _html(run)


def _collection(tmp_path, *wanted):
  for i, experiment in enumerate(wanted):
    synthetic_runs.write(tmp_path / f'{i}', experiment, accuracy=0.5 + i / 50)
  return reading.collect([tmp_path])


def _noises(*noises, seeds=2):
  return [
    synthetic_runs.build(seed=seed, privacy=synthetic_runs.privacy(noise))
    for noise in noises
    for seed in range(seeds)
  ]


def test_page_of_a_sweep(tmp_path):
  collection = _collection(tmp_path, *_noises(0.0, 0.5, 1.0))
  built = sweep_contents.build(collection, title='noise')
  assert [figure.name for figure in built.figures] == [
    'frontier',
    'paired_differences',
    'by_noise_multiplier',
    'curves',
  ]
  assert [t.name for t in built.data] == [
    'results',
    'paired_differences',
    'to_target',
  ]
  text = _check(page.to_html(built))
  assert 'partition, initial weights, cohorts, shuffles' in text
  assert 'Noise is drawn independently in every run' in text
  assert 'Papernot' in text


def test_common_noise_seed_is_not_called_independent(tmp_path):
  wanted = [
    synthetic_runs.build(privacy=synthetic_runs.privacy(noise, noise_seed=1))
    for noise in (0.5, 1.0)
  ]
  built = sweep_contents.build(_collection(tmp_path, *wanted), title='x')
  words = ' '.join(t for s in built.sections for t in s.paragraphs)
  assert 'not independent' in words


def test_relations_never_share_an_axis(tmp_path):
  wanted = [
    *_noises(0.5, 1.0, seeds=1),
    synthetic_runs.build(privacy=synthetic_runs.privacy(relation='zero_out')),
    synthetic_runs.build(privacy=config.no_privacy()),
  ]
  built = sweep_contents.build(_collection(tmp_path, *wanted), title='x')
  frontier = built.figures[0]
  assert frontier.panels == 2
  assert 'cannot be compared' in frontier.caption
  svg = drawing.inline_svg(frontier, drawing.Shape.WIDE)
  assert '(add or remove one)' in svg and '(zero out)' in svg
  assert any('cannot be compared' in warning for warning in built.warnings)
  _check(page.to_html(built))


@pytest.mark.parametrize('noises, shown', [((0.5, 1.0), 0), ((0.0, 1.0), 1)])
def test_infinity_has_a_place_only_where_an_arm_is_there(
  tmp_path, noises, shown
):
  built = sweep_contents.build(
    _collection(tmp_path, *_noises(*noises, seeds=1)), title='x'
  )
  axes = mpl_figure.Figure().subplots()
  built.figures[0].draw([axes], drawing.Shape.WIDE)
  labels = [label.get_text() for label in axes.get_xticklabels()]
  assert labels.count('∞') == shown


def test_what_is_missing_is_said(tmp_path):
  for i, wanted in enumerate(_noises(0.5, 1.0, seeds=1)):
    rounds = 2 if i else None
    synthetic_runs.write(tmp_path / f'run{i}', wanted, rounds=rounds)
  collection = reading.collect([tmp_path])
  built = sweep_contents.build(collection, title='x')
  assert any('1 unfinished' in w and 'run1' in w for w in built.warnings)
  assert any('no intervals' in w for w in built.warnings)


def test_nothing_finished_is_refused(tmp_path):
  wanted = synthetic_runs.build()
  synthetic_runs.write(tmp_path / 'a', wanted, rounds=1)
  collection = reading.collect([tmp_path])
  with pytest.raises(validate.UsageError, match='expected finished runs'):
    sweep_contents.build(collection, title='x')


def test_several_leaves_are_a_table_of_what_was_changed(tmp_path):
  wanted = [
    synthetic_runs.build(
      privacy=synthetic_runs.privacy(noise), cohort=config.poisson(size)
    )
    for noise in (0.5, 1.0)
    for size in (5, 6)
  ]
  built = sweep_contents.build(_collection(tmp_path, *wanted), title='x')
  (table,) = [t for t in built.data if t.name == 'configs']
  leaves = [row[0].text for row in table.rows]
  assert leaves[:2] == ['cohort.clients_per_round', 'privacy.noise_multiplier']
  assert leaves[-1].startswith('ε')
  _check(page.to_html(built))


@pytest.mark.parametrize('shape', list(drawing.Shape))
def test_figures_follow_the_colors_of_their_page(tmp_path, shape):
  built = run_contents.build(_run(tmp_path))
  svg = drawing.inline_svg(built.figures[0], shape)
  left = set(re.findall(r'#[0-9a-f]{6}\b', svg))
  assert left == set()
  assert 'var(--ink)' in svg and 'var(--series-0)' in svg


def test_same_run_gives_the_same_page(tmp_path):
  run = _run(tmp_path)
  assert _html(run) == _html(run)


def test_drawing_leaves_matplotlib_as_it_was(tmp_path):
  import matplotlib

  before = dict(matplotlib.rcParams)
  _html(_run(tmp_path))
  assert dict(matplotlib.rcParams) == before


def test_stand_in_data_is_named(tmp_path):
  wanted = synthetic_runs.build()
  path = synthetic_runs.write(tmp_path / 'run', wanted)
  summary = json.loads((path / 'summary.json').read_text())
  summary['data'] = 'synthetic stand-in'
  (path / 'summary.json').write_text(json.dumps(summary))
  for built in (
    run_contents.build(reading.read(path)),
    sweep_contents.build(reading.collect([tmp_path]), title='x'),
  ):
    assert any('synthetic stand-in' in warning for warning in built.warnings)


def test_extrapolated_columns_are_read_as_epsilon(tmp_path):
  wanted = synthetic_runs.build(privacy=synthetic_runs.extrapolated())
  path = synthetic_runs.write(tmp_path / 'run', wanted)
  text = (path / 'metrics.csv').read_text()
  text = text.replace(',epsilon', ',extrapolated_epsilon')
  (path / 'metrics.csv').write_text(text)
  frame = reading.load(path)
  assert frame['epsilon'].notna().all() and frame['extrapolated'].all()
  figure = run_contents.build(reading.read(path)).figures[0]
  svg = drawing.inline_svg(figure, drawing.Shape.WIDE)
  assert 'ε, extrapolated' in svg

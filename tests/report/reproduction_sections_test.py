"""The overview is what the sections say, and nothing else."""

import pytest

from tff_pipeline.report import reproduction_sections as sections


def _section(*rows, name='x', title='A title.'):
  lines = [sections.markdown_row(sections.COLUMNS)]
  lines.append(sections.markdown_row(['---'] * len(sections.COLUMNS)))
  lines += [sections.markdown_row(row) for row in rows]
  return (
    f'## {name}\n\n{title}\n\nWho. When.\n\n' + '\n'.join(lines) + '\n\nEnd.'
  )


def _row(name, published, ours, seeds='3'):
  return [name, published, ours, '–', '1.5', '60', seeds, '2.0']


def _overview(*rows):
  """Returns the cells of the only line."""
  *_, line = sections.overview({'x': _section(*rows)}).splitlines()
  return line[2:-2].split(' | ')


def test_a_table_is_read_as_it_was_written():
  rows = [_row('a, b', '0.900', '0.905 ± 0.001'), _row('c', '–', '0.5')]
  assert sections.table(_section(*rows)) == [
    dict(zip(sections.COLUMNS, row, strict=True)) for row in rows
  ]


def test_overview_counts_rows_and_seeds():
  rows = [
    _row('a', '–', '0.5', seeds='3'),
    _row('b', '–', '0.5', seeds='1'),
    _row('c', '–', sections.NOT_RUN, seeds='–'),
  ]
  assert _overview(*rows) == ['[x](#x)', 'A title', '2 of 3', '1 to 3', '–']
  assert _overview(rows[0])[2:4] == ['1 of 1', '3']
  assert _overview(rows[2])[2:] == ['0 of 1', '–', '–']


@pytest.mark.parametrize(
  'rows, expected',
  [
    (
      [_row('near', '0.950', '0.954 ± 0.001'), _row('far', '0.900', '0.880')],
      '0.880 for 0.900 (far)',
    ),
    # In proportion, and as far below as above.
    (
      [
        _row('slow, rounds to 0.97', '600', '900 ± 5 (rate 0.1)'),
        _row('fast, rounds to 0.97', '80', '40 ± 1 (rate 0.1)'),
      ],
      '40 ± 1 for 80 (fast, rounds to 0.97)',
    ),
    (
      [_row('a', '87', '8'), _row('b', '87', 'not in 100; best 0.960')],
      'not in 100; best 0.960 for 87 (b)',
    ),
    ([_row('run', '0.9', '0.9'), _row('not', '0.1', sections.NOT_RUN)], None),
  ],
)
def test_overview_has_the_row_farthest_from_what_was_published(rows, expected):
  assert _overview(*rows)[-1] == (expected or '0.9 for 0.9 (run)')

"""What a page of reproductions says, read back from its Markdown.

A paper that is not run again keeps its section, so the overview at the top of
the page is made of sections, whenever they were written.
"""

from collections.abc import Mapping, Sequence
import math
import re

COLUMNS = (
  'row',
  'published',
  'ours',
  'published ε',
  'our ε',
  'rounds',
  'seeds',
  'minutes a run',
)
"""Of the table of a section."""

NOT_RUN = '*not run here*'
_NONE = '–'


def split(text: str) -> dict[str, str]:
  r"""Returns the sections of a page, by paper.

  >>> split('# Page\n\nText.\n\n## a\n\nOf a.\n\n## b\n\nOf b.\n')
  {'a': '## a\n\nOf a.', 'b': '## b\n\nOf b.'}
  """
  parts = re.split(r'^(?=## )', text, flags=re.MULTILINE)[1:]
  return {
    part.splitlines()[0].removeprefix('## '): part.strip() for part in parts
  }


def table(section: str) -> list[dict[str, str]]:
  """Returns the rows of a section's table: column -> cell."""
  lines = [line for line in section.splitlines() if line.startswith('| ')]
  return [
    dict(zip(COLUMNS, line[2:-2].split(' | '), strict=True))
    for line in lines[2:]  # After the names of columns and the rule.
  ]


def has_runs(section: str) -> bool:
  """Returns whether a section holds a figure of our own."""
  return any(row['ours'] != NOT_RUN for row in table(section))


def overview(sections: Mapping[str, str]) -> str:
  """Returns a table with a line for each section of a page."""
  names = ['paper', 'what', 'rows run', 'seeds', 'farthest from published']
  lines = [markdown_row(names), markdown_row(['---'] * len(names))]
  for name, section in sections.items():
    rows = table(section)
    ran = [row for row in rows if row['ours'] != NOT_RUN]
    seeds = sorted({int(row['seeds']) for row in ran})
    lines.append(
      markdown_row(
        [
          f'[{name}](#{name})',
          section.splitlines()[2].removesuffix('.'),
          f'{len(ran)} of {len(rows)}',
          ' to '.join(dict.fromkeys(map(str, seeds[:1] + seeds[-1:]))) or _NONE,
          _farthest(ran),
        ]
      )
    )
  return '\n'.join(lines)


def _farthest(rows: Sequence[Mapping[str, str]]) -> str:
  """Returns which row is, in proportion, the farthest from what it repeats."""
  known = [row for row in rows if row['published'] != _NONE]
  if not known:
    return _NONE
  row = max(known, key=_distance)
  ours = re.sub(r' \(.*', '', row['ours'])
  return f'{ours} for {row["published"]} ({row["row"]})'


def _distance(row: Mapping[str, str]) -> float:
  """Returns the distance in proportion; infinite if a target was not met."""
  try:
    ours, published = float(row['ours'].split()[0]), float(row['published'])
  except ValueError:
    return math.inf
  return abs(math.log(ours / published))


def markdown_row(cells: Sequence[str]) -> str:
  """Returns one line of a Markdown table."""
  return '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'

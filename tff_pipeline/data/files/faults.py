"""What is wrong with a user's file: file, row and column, never the cell.

What stands in a cell may be private, and a column that was not named as the
clients' may hold their names. So an error says where it is, and of what kind.
"""

import os

from tff_pipeline import validate


def cell(
  path: str | os.PathLike[str],
  *,
  row: int,
  column: str,
  expected: str,
  found: str,
  remedy: str = '',
) -> validate.UsageError:
  """Returns the error about one cell.

  Args:
    path: The file.
    row: Its number as people count: from 1, where the header, if there is one,
      is row 1.
    column: Name of the column.
    expected: What a good cell holds.
    found: The kind of thing that it holds.
    remedy: Which flag to turn; a clause without a final stop.
  """
  return validate.error(
    'task.path',
    expected=f'{expected} in {os.fspath(path)}, row {row}, column '
    f'{shown(column)}',
    found=found,
    remedy=remedy,
  )


def shown(name: str) -> str:
  """Returns a name so that it stays on one line."""
  return name if name and name.isprintable() else repr(name)


def kind(text: str) -> str:
  """Returns what a cell that should be a number is.

  >>> kind('12a'), kind('')
  ('text of 3 characters', 'an empty cell')
  """
  return f'text of {len(text)} characters' if text else 'an empty cell'

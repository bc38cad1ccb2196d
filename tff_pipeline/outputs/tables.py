"""metrics.csv and TensorBoard: one row a round."""

from collections.abc import Iterable, Mapping
import csv
import io
import math
import os
import pathlib
import shutil

from tff_pipeline import validate
from tff_pipeline.outputs import event_file
from tff_pipeline.outputs import run_directory

NAME = 'metrics.csv'
_KEY = 'round'


def recorded_rounds(folder: pathlib.Path) -> int:
  """Returns how many rounds have a row: they are rounds 1, 2, … in order.

  Raises:
    UsageError: If the rows are others.
  """
  return len(_read(folder / NAME))


def recorded(folder: pathlib.Path, column: str) -> list[float]:
  """Returns the values of a column, round by round.

  Raises:
    UsageError: If there are rows without it, or damaged ones.
  """
  path = folder / NAME
  rows = _read(path)
  if rows and column not in rows[0]:
    raise validate.error(
      'output_dir', expected=f'a column {column} in {path}', found='none'
    )
  return [float(row[column]) for row in rows]


class Tables:
  """Writes rows to `metrics.csv` and the same scalars to `tensorboard/`.

  TFF's CSV manager is not used: it rewrites the whole file for every row, does
  not sync it, and joins a row that a crash cut short to the next one. Nor is
  its TensorBoard manager: it does not rewind, and takes a minute for 5,000
  rows. `tensorboard/` is derived from the CSV file, and made anew on resume.
  """

  def __init__(self, folder: pathlib.Path, *, completed: int):
    """Opens the tables of a run that continues after round `completed`.

    Args:
      folder: The run directory.
      completed: Rows of later rounds are dropped.
    """
    self._path = folder / NAME
    rows = _read(self._path)[:completed]
    # Unset until the first row, which decides the order of the columns.
    self._columns = tuple(rows[0]) if rows else None
    if self._path.exists():
      header = [_line(self._columns)] if self._columns else []
      lines = [_line(row.values()) for row in rows]
      run_directory.write_text(self._path, ''.join(header + lines))
    board = folder / 'tensorboard'
    if board.exists():
      shutil.rmtree(board)
    self._board = event_file.EventFile(board)
    for row in rows:
      values = {k: float(v) for k, v in row.items() if k != _KEY}
      self._board.add(int(row[_KEY]), _known(values))
    self._board.flush()

  def write(self, round_num: int, row: Mapping[str, float]) -> None:
    """Writes one finished row; NaN where a round has no value.

    Args:
      round_num: One more than that of the row before.
      row: Values by column, in the order of the first row.

    Raises:
      OSError: If it cannot be written. Earlier rows are safe.
    """
    columns = (_KEY, *row)
    lines = [_line([round_num, *row.values()])]
    if self._columns is None:
      self._columns = columns
      lines.insert(0, _line(columns))
    if columns != self._columns:
      raise validate.error(
        'output_dir',
        expected=f'{self._path} with the columns {", ".join(columns)}',
        found=', '.join(self._columns),
        remedy='Restore the file, or start a new run elsewhere',
      )
    # One write: a reader sees whole rows, unless the machine dies in it.
    with open(self._path, 'ab', buffering=0) as file:
      file.write(''.join(lines).encode())
      os.fsync(file.fileno())
    self._board.add(round_num, _known(row))
    self._board.flush()


def _known(row: Mapping[str, float]) -> dict[str, float]:
  return {k: v for k, v in row.items() if not math.isnan(v)}


def _read(path: pathlib.Path) -> list[dict[str, str]]:
  """Returns the rows but for one that a crash cut short."""
  if not path.exists():
    return []
  # A byte that is no text makes its row a damaged one.
  with open(path, encoding='utf-8', errors='replace', newline='') as file:
    text = file.read()
  whole = text[: text.rfind('\n') + 1]
  try:
    rows = list(csv.DictReader(io.StringIO(whole)))
  except csv.Error as e:
    raise validate.error(
      'output_dir', expected=f'a table in {path}', found=str(e)
    ) from e
  for number, row in enumerate(rows, start=1):
    if not _is_whole(row) or row.get(_KEY) != str(number):
      raise validate.error(
        'output_dir',
        expected=f'the row of round {number} in line {number + 1} of {path}',
        found='another',
        remedy='Restore the file, or start a new run elsewhere',
      )
  return rows


def _is_whole(row: dict[str, str]) -> bool:
  if None in row or None in row.values():  # Longer or shorter.
    return False
  try:
    for value in row.values():
      float(value)
  except ValueError:
    return False
  return True


def _line(values: Iterable[object]) -> str:
  line = io.StringIO()
  csv.writer(line, lineterminator='\n').writerow(values)
  return line.getvalue()

"""metrics.csv and TensorBoard: one row a round, through TFF's managers."""

import asyncio
from collections.abc import Mapping
import csv
import os
import pathlib
import shutil

import tensorflow_federated as tff

_KEY = 'round'


class Tables:
  """Writes rows to `metrics.csv` and the same scalars to `tensorboard/`.

  TFF's CSV manager forgets rows past the one that it is given, so a resumed
  run rewinds. What it lacks: a last row that a crash cut short would be joined
  to the next one; it is dropped here. TFF's TensorBoard manager does not rewind
  at all: its folder is derived from the CSV file, and made anew on resume.
  """

  def __init__(self, folder: pathlib.Path, *, completed: int):
    """Opens the tables of a run that continues after round `completed`."""
    self._csv_path = folder / 'metrics.csv'
    rows = self._rewind(completed)
    self._csv = None
    board = folder / 'tensorboard'
    if board.exists():
      shutil.rmtree(board)
    self._board = tff.program.TensorBoardReleaseManager(os.fspath(board))
    for row in rows:
      self._release_to_board(
        {k: float(v) for k, v in row.items() if k != _KEY}, int(row[_KEY])
      )

  def _rewind(self, completed: int) -> list[dict[str, str]]:
    """Drops what is not a whole row of a completed round; returns the rest."""
    if not self._csv_path.exists():
      return []
    text = self._csv_path.read_text(encoding='utf-8')
    whole = text[: text.rfind('\n') + 1]
    reader = csv.DictReader(whole.splitlines())
    if not reader.fieldnames:
      self._csv_path.unlink()
      return []
    rows = [row for row in reader if int(row[_KEY]) <= completed]
    partial = self._csv_path.with_suffix('.partial')
    with open(partial, 'w', encoding='utf-8', newline='') as file:
      writer = csv.DictWriter(file, fieldnames=reader.fieldnames)
      writer.writeheader()
      writer.writerows(rows)
    os.replace(partial, self._csv_path)
    return rows

  @property
  def path(self) -> pathlib.Path:
    """Where the rows are."""
    return self._csv_path

  def write(self, round_num: int, row: Mapping[str, float]) -> None:
    """Writes one finished row; NaN where a round has no value."""
    if self._csv is None:
      self._csv = self._open_csv(row)
    asyncio.run(self._csv.release(dict(row), round_num))
    self._release_to_board(row, round_num)

  def _open_csv(
    self, row: Mapping[str, float]
  ) -> tff.program.CSVFileReleaseManager:
    """Opens the file; a new one gets the row's order of columns."""
    if not self._csv_path.exists():
      self._csv_path.write_text(','.join([_KEY, *row]) + '\n', encoding='utf-8')
    return tff.program.CSVFileReleaseManager(
      os.fspath(self._csv_path), key_fieldname=_KEY
    )

  def _release_to_board(self, row: Mapping[str, float], round_num: int) -> None:
    known = {name: value for name, value in row.items() if value == value}
    asyncio.run(self._board.release(known, round_num))

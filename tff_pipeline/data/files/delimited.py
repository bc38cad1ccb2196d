"""CSV files: text with a header, in UTF-8, separated by , or ; or tab."""

from collections.abc import Iterator
import csv
import pathlib

import pyarrow as pa
from pyarrow import csv as pa_csv

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data import data_set
from tff_pipeline.data.files import columns
from tff_pipeline.data.files import table
from tff_pipeline.data.files import tabular

_DELIMITERS = (',', ';', '\t')
_BLOCK_BYTES = 1 << 22
_HEADER_ROW = 1
_MAX_HEADER_BYTES = 1 << 20


def prepare(task: config.Task, *, data_dir: pathlib.Path) -> None:
  """Raises `UsageError` about the file's name or its header."""
  del data_dir
  names, _ = _header(task)
  columns.resolve(task, names)


def load(task: config.Task, *, data_dir: pathlib.Path) -> data_set.DataSet:
  """Returns the rows of a CSV file.

  Rows are numbered as in a spreadsheet: the header is row 1.

  Raises:
    UsageError: If a cell, a row or the header is not as it should be.
  """
  del data_dir
  names, delimiter = _header(task)
  roles = columns.resolve(task, names)
  rows = table.read(
    _batches(existing_file(task), names, delimiter, roles),
    path=task.path,
    first_row=_HEADER_ROW + 1,
    roles=roles,
    task=task,
  )
  return tabular.build(rows, task=task, chosen=roles.chosen)


def _header(task: config.Task) -> tuple[list[str], str]:
  """Returns the columns' names and the delimiter."""
  path = existing_file(task)
  try:
    with path.open('rb') as file:
      line = file.readline(_MAX_HEADER_BYTES).decode('utf-8-sig')
  except UnicodeDecodeError as e:
    raise _not_utf8(path, _HEADER_ROW) from e
  if not line.strip():
    raise validate.error(
      'task.path',
      expected="a CSV file with the columns' names in its first row",
      found=f'nothing in the first row of {path}',
    )
  split = {
    mark: [name.strip() for name in next(csv.reader([line], delimiter=mark))]
    for mark in _DELIMITERS
  }
  delimiter = max(split, key=lambda mark: len(split[mark]))
  return split[delimiter], delimiter


def existing_file(task: config.Task) -> pathlib.Path:
  """Returns the task's file, or raises `UsageError` that there is none."""
  path = pathlib.Path(task.path).expanduser()
  if not path.is_file():
    raise validate.error('task.path', expected='a file', found=task.path)
  return path


def _batches(
  path: pathlib.Path,
  names: list[str],
  delimiter: str,
  roles: columns.Roles,
) -> Iterator[pa.RecordBatch]:
  bad_rows = []

  def refuse(row: pa_csv.InvalidRow) -> str:
    bad_rows.append(row)
    return 'error'

  try:
    yield from pa_csv.open_csv(
      path,
      read_options=pa_csv.ReadOptions(
        use_threads=False,  # With threads, a bad row has no number.
        block_size=_BLOCK_BYTES,
        column_names=names,
        skip_rows=_HEADER_ROW,
      ),
      parse_options=pa_csv.ParseOptions(
        delimiter=delimiter,
        newlines_in_values=True,
        ignore_empty_lines=False,
        invalid_row_handler=refuse,
      ),
      convert_options=pa_csv.ConvertOptions(
        include_columns=list(dict.fromkeys(roles.all)),
        column_types={name: pa.string() for name in roles.all},
        strings_can_be_null=False,
      ),
    )
  except pa.ArrowInvalid as e:
    # Arrow's message shows the row; ours does not, nor do we chain it.
    raise _refused(path, bad_rows, str(e)) from None


def _refused(
  path: pathlib.Path, bad_rows: list[pa_csv.InvalidRow], reason: str
) -> validate.UsageError:
  if bad_rows:
    row = bad_rows[0]
    return validate.error(
      'task.path',
      expected=f'{row.expected_columns} cells in {path}, row {row.number}',
      found=row.actual_columns,
    )
  if 'UTF8' in reason:
    return _not_utf8(path, _first_undecodable_line(path))
  return validate.error(
    'task.path', expected='rows of cells, as in CSV', found=f'others in {path}'
  )


def _not_utf8(path: pathlib.Path, row: int) -> validate.UsageError:
  return validate.error(
    'task.path',
    expected=f'text in UTF-8 in {path}, line {row}',
    found='another encoding',
    remedy='Save the file as UTF-8',
  )


def _first_undecodable_line(path: pathlib.Path) -> int:
  with path.open('rb') as file:
    for number, line in enumerate(file, start=1):
      try:
        line.decode('utf-8')
      except UnicodeDecodeError:
        return number
  return 0

"""Parquet files: one value in a cell, of any type."""

from collections.abc import Iterator
import pathlib

import pyarrow as pa
from pyarrow import parquet as pa_parquet

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data import data_set
from tff_pipeline.data import raw_files
from tff_pipeline.data.files import columns
from tff_pipeline.data.files import delimited
from tff_pipeline.data.files import table
from tff_pipeline.data.files import tabular

_BATCH_ROWS = 1 << 16
_CELL_BYTES = 8


def prepare(task: config.Task, *, data_dir: pathlib.Path) -> None:
  """Raises `UsageError` about the file or its columns."""
  del data_dir
  with _opened(task) as file:
    columns.resolve(task, file.schema_arrow.names)


def load(task: config.Task, *, data_dir: pathlib.Path) -> data_set.DataSet:
  """Returns the rows of a parquet file, which are numbered from 1.

  Raises:
    UsageError: If a cell or a column is not as it should be.
  """
  del data_dir
  with _opened(task) as file:
    roles = columns.resolve(task, file.schema_arrow.names)
    # Equal cells are packed into nothing.
    cells = file.metadata.num_rows * len(list(roles.all))
    raw_files.check_memory(task.path, cells * _CELL_BYTES, 'task.path')
    rows = table.read(
      _batches(file, roles, task),
      path=task.path,
      first_row=1,
      roles=roles,
      task=task,
    )
  return tabular.build(rows, task=task, chosen=roles.chosen)


def _opened(task: config.Task) -> pa_parquet.ParquetFile:
  path = delimited.existing_file(task)
  try:
    return pa_parquet.ParquetFile(path)
  except (pa.ArrowInvalid, OSError) as e:
    raise _damaged(task) from e


def _batches(
  file: pa_parquet.ParquetFile, roles: columns.Roles, task: config.Task
) -> Iterator[pa.RecordBatch]:
  try:
    for batch in file.iter_batches(_BATCH_ROWS, columns=list(roles.all)):
      batch.validate(full=True)  # Text that is none, offsets that lead away.
      yield batch
  except (pa.ArrowInvalid, OSError) as e:
    raise _damaged(task) from e


def _damaged(task: config.Task) -> validate.UsageError:
  return validate.error(
    'task.path', expected='a whole parquet file', found=task.path
  )

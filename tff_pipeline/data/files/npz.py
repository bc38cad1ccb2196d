"""NumPy archives: arrays as long as each other, one row an example.

Arrays of Python objects would have to be unpickled, which can run any code;
they are refused.
"""

import pathlib

import numpy as np

from tff_pipeline import config
from tff_pipeline import validate
from tff_pipeline.data import client_data
from tff_pipeline.data import data_set
from tff_pipeline.data import raw_files
from tff_pipeline.data.files import columns
from tff_pipeline.data.files import delimited
from tff_pipeline.data.files import faults
from tff_pipeline.data.files import splitting
from tff_pipeline.data.files import table
from tff_pipeline.data.files import tabular

_BYTE_IMAGE_DIMENSIONS = (3, 4)


def prepare(task: config.Task, *, data_dir: pathlib.Path) -> None:
  """Raises `UsageError` about the file or the names of its arrays."""
  del data_dir
  with _opened(task) as archive:
    _roles(task, archive)


def load(task: config.Task, *, data_dir: pathlib.Path) -> data_set.DataSet:
  """Returns the rows of an archive's arrays, which are numbered from 1.

  One feature array keeps the shape of its rows; several ones are flattened and
  joined. Images of bytes ([n, height, width] or [n, height, width, channels],
  uint8) stay bytes; the model divides them by 255.

  Raises:
    UsageError: If an array is not as it should be.
  """
  del data_dir
  with _opened(task) as archive:
    roles = _roles(task, archive)
    label = _array(task, archive, roles.label)
    features = [_array(task, archive, name) for name in roles.features]
    owners = None
    if roles.client is not None:
      owners = _clients(task, _array(task, archive, roles.client), roles)
  for name, values in zip(roles.features, features, strict=True):
    _check_numbers(task, name, values, rows=len(label))
  if owners is not None and len(owners) != len(label):
    raise _wrong_length(task, roles.client, len(owners), len(label))
  return _data_set(task, roles, features, label, owners)


def _data_set(
  task: config.Task,
  roles: columns.Roles,
  features: list[np.ndarray],
  label: np.ndarray,
  owners: np.ndarray | None,
) -> data_set.DataSet:
  test = splitting.held_out(owners, rows=len(label), task=task)
  train = np.flatnonzero(~test)
  target = tabular.Target(_label_column(task, roles.label, label), train, task)
  images = _are_images(features, task)
  if images:
    x, scale = features[0], None
    x = x if x.ndim == 4 else x[..., np.newaxis]
  else:
    x, scale = _joined(features), None
    if task.scaling is not config.Scaling.NONE:
      scale = _scale(x[train])

  def examples(rows: np.ndarray) -> client_data.Examples:
    return client_data.Examples(_scaled(x[rows], scale), target.values(rows))

  uncovered = (() if scale is None else (tabular.MEANS,)) + target.uncovered
  encoding = {'features': list(roles.features), **target.to_plain()}
  if scale is not None:
    encoding |= {'mean': scale[0].tolist(), 'stddev': scale[1].tolist()}
  return tabular.assemble(
    examples,
    owners,
    test,
    num_classes=target.num_outputs,
    objective=target.objective,
    preprocessing='scale' if images else 'none',
    uncovered=tuple(dict.fromkeys(uncovered)),
    class_names=target.class_names,
    encoding=encoding,
  )


def _opened(task: config.Task) -> np.lib.npyio.NpzFile:
  path = delimited.existing_file(task)
  try:
    archive = np.load(path, allow_pickle=False)
  except raw_files.UNREADABLE as e:
    raise _damaged(task) from e
  if not isinstance(archive, np.lib.npyio.NpzFile):
    raise _damaged(task)
  raw_files.check_memory(
    task.path, raw_files.unpacked_bytes(archive), 'task.path'
  )
  return archive


def _damaged(task: config.Task) -> validate.UsageError:
  return validate.error(
    'task.path', expected='a whole .npz archive', found=task.path
  )


def _roles(task: config.Task, archive: np.lib.npyio.NpzFile) -> columns.Roles:
  return columns.resolve(task, archive.files)


def _array(
  task: config.Task, archive: np.lib.npyio.NpzFile, name: str
) -> np.ndarray:
  try:
    values = raw_files.array(archive, name)
  except raw_files.UNREADABLE as e:
    raise validate.error(
      'task.path',
      expected=f'an array of numbers or text in {task.path}, array '
      f'{faults.shown(name)}',
      found='Python objects' if 'allow_pickle' in str(e) else 'a damaged one',
    ) from None
  if values.ndim == 0:
    raise validate.error(
      'task.path',
      expected=f'rows in {task.path}, array {faults.shown(name)}',
      found='a single value',
    )
  return values


def _wrong_length(
  task: config.Task, name: str, found: int, rows: int
) -> validate.UsageError:
  return validate.error(
    'task.path',
    expected=f'{rows} rows, as the labels, in {task.path}, array '
    f'{faults.shown(name)}',
    found=found,
    remedy='Choose the arrays by --task.feature_columns',
  )


def _check_numbers(
  task: config.Task, name: str, values: np.ndarray, *, rows: int
) -> None:
  if values.dtype.kind not in 'biuf':
    raise validate.error(
      'task.path',
      expected=f'numbers in {task.path}, array {faults.shown(name)}',
      found=str(values.dtype),
      remedy='Choose the arrays by --task.feature_columns',
    )
  if len(values) != rows:
    raise _wrong_length(task, name, len(values), rows)
  if values.dtype.kind == 'f':
    finite = np.isfinite(values).reshape(rows, -1).all(axis=1)
    if not finite.all():
      raise faults.cell(
        task.path,
        row=int(finite.argmin()) + 1,
        column=name,
        expected='finite numbers',
        found='infinity or NaN',
      )


def _flat_text(
  task: config.Task, name: str, values: np.ndarray
) -> table.Categories:
  if values.ndim != 1:
    raise validate.error(
      'task.path',
      expected=f'one value a row in {task.path}, array {faults.shown(name)}',
      found=f'shape {list(values.shape)}',
    )
  if values.dtype.kind == 'f' and not np.isfinite(values).all():
    raise faults.cell(
      task.path,
      row=int(np.isfinite(values).argmin()) + 1,
      column=name,
      expected='a value',
      found='infinity or NaN',
    )
  different, codes = np.unique(values, return_inverse=True)
  names = [v.decode() if isinstance(v, bytes) else str(v) for v in different]
  return table.Categories(name, codes, tuple(names))


def _clients(
  task: config.Task, values: np.ndarray, roles: columns.Roles
) -> np.ndarray:
  return table.numbered(_flat_text(task, roles.client, values))


def _label_column(
  task: config.Task, name: str, values: np.ndarray
) -> table.Column:
  if task.target is config.Target.NUMBERS:
    _check_numbers(task, name, values, rows=len(values))
    return table.Numbers(name, values.astype(np.float64).reshape(-1))
  column = _flat_text(task, name, values)
  if len(column.names) > table.MAX_CATEGORIES:
    raise validate.error(
      'task.label_column',
      expected=f'at most {table.MAX_CATEGORIES} classes',
      found=len(column.names),
      remedy='Numbers to be predicted need --task.target=numbers',
    )
  return column


def _are_images(features: list[np.ndarray], task: config.Task) -> bool:
  return (
    len(features) == 1
    and features[0].dtype == np.uint8
    and features[0].ndim in _BYTE_IMAGE_DIMENSIONS
    and task.scaling is None
  )


def _joined(features: list[np.ndarray]) -> np.ndarray:
  if len(features) == 1:
    one = features[0]
    return one[:, np.newaxis] if one.ndim == 1 else one
  return np.concatenate([one.reshape(len(one), -1) for one in features], axis=1)


def _scale(train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns mean and deviation over rows; float64, of the shape of a row."""
  mean = train.mean(axis=0, dtype=np.float64)
  spread = train.std(axis=0, dtype=np.float64)
  largest = np.abs(train).max(axis=0).astype(np.float64)
  return mean, np.where(
    spread > 1e-12 * np.maximum(largest, 1e-300), spread, 1.0
  )


def _scaled(
  x: np.ndarray, scale: tuple[np.ndarray, np.ndarray] | None
) -> np.ndarray:
  if scale is not None:
    return ((x - scale[0]) / scale[1]).astype(np.float32)
  return x if x.dtype == np.uint8 and x.ndim == 4 else x.astype(np.float32)

"""Scalars for TensorBoard: one event a round, in one file.

TensorFlow's summary writer runs three operations a scalar: some milliseconds a
round, and a minute before a run of 5,000 rounds could go on, since its events
are written anew on resume. This writes the same records itself.
"""

from collections.abc import Mapping
import os
import pathlib
import time

import tensorflow as tf

from tff_pipeline.outputs import disk

_VERSION = 'brain.Event:2'
_SCALAR = tf.compat.v1.SummaryMetadata(
  plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name='scalars'),
  data_class='DATA_CLASS_SCALAR',
)


class EventFile:
  """An event file that TensorBoard reads while it grows."""

  def __init__(self, folder: pathlib.Path):
    """Opens a new file in a folder, which is created.

    Raises:
      OSError: If it cannot be written.
    """
    now = time.time()
    self._path = folder / f'events.out.tfevents.{int(now)}.rows.v2'
    folder.mkdir(parents=True, exist_ok=True)
    with disk.os_errors(self._path):
      self._writer = tf.io.TFRecordWriter(os.fspath(self._path))
    self._write(tf.compat.v1.Event(wall_time=now, file_version=_VERSION))
    self.flush()

  def add(self, step: int, scalars: Mapping[str, float]) -> None:
    """Adds the scalars of a step; they are on disk after `flush`.

    Args:
      step: The round.
      scalars: Value by tag; a tag may be missing in some steps.

    Raises:
      OSError: If it cannot be written.
    """
    event = tf.compat.v1.Event(wall_time=time.time(), step=step)
    for tag, scalar in scalars.items():
      value = event.summary.value.add(tag=tag, metadata=_SCALAR)
      value.tensor.dtype = tf.float32.as_datatype_enum
      value.tensor.tensor_shape.SetInParent()
      value.tensor.float_val.append(scalar)
    self._write(event)

  def flush(self) -> None:
    """Hands everything to the operating system.

    Raises:
      OSError: If it cannot be written.
    """
    with disk.os_errors(self._path):
      self._writer.flush()

  def _write(self, event: tf.compat.v1.Event) -> None:
    with disk.os_errors(self._path):
      self._writer.write(event.SerializeToString())

"""Hyper-parameters of a run, for TensorBoard's HParams tab."""

from collections.abc import Mapping
import os
import pathlib
from typing import Any

from tensorboard.plugins.hparams import api as hparams
import tensorflow as tf

from tff_pipeline.outputs import disk


def write(
  folder: pathlib.Path,
  leaves: Mapping[str, Any],
  *,
  metrics: tuple[str, ...],
) -> None:
  """Writes the leaves of a config beside the scalars of a run.

  TensorBoard shows one row for each run: its leaves, and the last value of
  each of these scalars. Epsilon has to be among them.

  Args:
    folder: TensorBoard's folder of the run.
    leaves: Dotted name -> number or text.
    metrics: Names of scalars that are in the folder.

  Raises:
    OSError: If it cannot be written.
    ValueError: If epsilon is not among the metrics.
  """
  if not {'epsilon', 'extrapolated_epsilon'} & set(metrics):
    raise ValueError(f'no result without its epsilon: {metrics}')
  with disk.os_errors(folder):
    writer = tf.summary.create_file_writer(
      os.fspath(folder), filename_suffix='.hparams'
    )
    with writer.as_default():
      hparams.hparams_config(
        hparams=[hparams.HParam(name) for name in leaves],
        metrics=[hparams.Metric(name) for name in metrics],
      )
      hparams.hparams(dict(leaves), trial_id=folder.parent.resolve().name)
    writer.close()

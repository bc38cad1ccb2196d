"""The trained Keras model, on its own."""

from collections.abc import Callable
import os
import pathlib
import shutil

import tensorflow as tf
import tensorflow_federated as tff

from tff_pipeline.outputs import disk
from tff_pipeline.outputs import run_directory


def write(
  path: pathlib.Path,
  factory: Callable[[], tf.keras.Model],
  weights: tff.learning.models.ModelWeights,
) -> None:
  """Saves `factory`'s model with these weights; replaces what was there.

  `tf.keras.models.load_model(path)` reads it without this package.

  Args:
    path: The model's directory.
    factory: Builds the architecture; its initial weights do not matter.
    weights: The trained weights, in the order of Keras's variables.

  Raises:
    OSError: If it cannot be written; what was there before is safe.
  """
  model = factory()
  for variable, value in zip(
    model.trainable_variables, weights.trainable, strict=True
  ):
    variable.assign(value)
  partial = path.with_name(path.name + '.partial')
  replaced = path.with_name(path.name + '.replaced')
  for left in (partial, replaced):
    if left.exists():
      shutil.rmtree(left)
  with disk.os_errors(path):
    tf.keras.models.save_model(model, os.fspath(partial), save_format='tf')
  run_directory.sync_tree(partial)
  if path.exists():
    path.rename(replaced)  # Not deleted in its place: nobody sees a half one.
  partial.rename(path)
  run_directory.sync(path.parent)
  if replaced.exists():
    shutil.rmtree(replaced)

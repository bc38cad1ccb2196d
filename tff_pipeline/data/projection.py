"""Images as coordinates along principal components.

Abadi et al. 2016 (arXiv:1607.00133), section 4: images are vectors of unit norm
when the components are looked for, and the covariance is not centred:

  A: one row x / |x| for each training image;  V: the largest eigenvectors of
  A^T A;  projected image: V^T x

There, A^T A is noised. Here it is not, so what a privacy statement does not
cover is longer by a clause.
"""

import dataclasses

import numpy as np

from tff_pipeline import validate
from tff_pipeline.data import client_data
from tff_pipeline.data import data_set

UNCOVERED = (
  'principal components of all training images, which the images are projected '
  'to'
)


def principal_components(
  loaded: data_set.DataSet, count: int
) -> data_set.DataSet:
  """Returns the data with x float32 [n, count], all that is held out included.

  Args:
    loaded: Pooled bytes of images, before they are scaled.
    count: Number of components; at most that of pixels.

  Raises:
    UsageError: If images do not have so many pixels.
  """
  pixels = _pixels(loaded.train)
  if count > pixels.shape[1]:
    raise validate.error(
      'task.components',
      expected=f'at most {pixels.shape[1]}, the pixels of an image',
      found=count,
    )
  norms = np.linalg.norm(pixels, axis=1, keepdims=True)
  unit = pixels / np.where(norms > 0, norms, 1.0)
  # Of a symmetric matrix; the largest eigenvalues come last.
  _, vectors = np.linalg.eigh(unit.T.astype(np.float64) @ unit)
  largest = vectors[:, ::-1][:, :count].astype(np.float32)
  return dataclasses.replace(
    loaded,
    train=client_data.Examples(pixels @ largest, loaded.train.y),
    test=client_data.Examples(_pixels(loaded.test) @ largest, loaded.test.y),
    preprocessing='none',
    uncovered=(*loaded.uncovered, UNCOVERED),
  )


def _pixels(images: client_data.Examples) -> np.ndarray:
  return images.x.reshape(len(images), -1).astype(np.float32) / 255

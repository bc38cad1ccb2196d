"""Small files of a user's own, for the tests of every format."""

import pathlib

import numpy as np
import pandas as pd

from tff_pipeline import config

NAMES = ('ann@example.com', 'bob@example.com', 'cy@example.com', 'dee')
COLUMNS = {
  'client_column': 'user',
  'label_column': 'bought',
  'categorical_columns': 'city',
}


def frame(rows: int = 60) -> pd.DataFrame:
  """Returns rows of four users: age and income are numbers, city a name."""
  rng = np.random.default_rng(0)
  return pd.DataFrame(
    {
      'user': np.array(NAMES)[np.arange(rows) % 4],
      'age': rng.integers(18, 90, rows),
      'city': np.array(['Rome', 'Oslo', 'Lima'])[rng.integers(0, 3, rows)],
      'income': rng.normal(3e4, 1e4, rows).round(2),
      'bought': np.array(['no', 'yes'])[rng.integers(0, 2, rows)],
    }
  )


def task(path: pathlib.Path, **leaves: object) -> config.Task:
  """Returns the task of a CSV or parquet file with the columns of `frame`."""
  name = {'.csv': 'csv', '.parquet': 'parquet'}[path.suffix]
  return config.Task(name=name, path=str(path), **{**COLUMNS, **leaves})


def csv(folder: pathlib.Path, data: pd.DataFrame | None = None) -> pathlib.Path:
  """Returns a CSV file of this data."""
  path = folder / 'own.csv'
  (frame() if data is None else data).to_csv(path, index=False)
  return path

"""Heart disease: 920 patients; clients are the four hospitals.

Janosi, Steinbrunn, Pfisterer, Detrano, UCI Heart Disease (1988). The label is
whether any vessel is narrowed. A third of each hospital, stratified by label,
is held out, always the same rows.

Thirteen measurements become 30 features. Numbers are standardized; a missing
one is 0, the mean, with an indicator beside it. Codes become one column per
value; a missing one is 0 in all of them.
"""

from collections.abc import Mapping, Sequence
import csv
import math
import pathlib

import numpy as np

from tff_pipeline import config
from tff_pipeline.data import client_data
from tff_pipeline.data import data_set
from tff_pipeline.data import downloads
from tff_pipeline.data import raw_files
from tff_pipeline.data import stand_in

HOSPITALS = ('cleveland', 'hungary', 'switzerland', 'va_long_beach')
NUMBERS = ('age', 'trestbps', 'chol', 'thalach', 'oldpeak', 'ca')
# Number -> value that stands for "not measured" in some hospitals.
_NOT_MEASURED = {'trestbps': 0.0, 'chol': 0.0}
_NEVER_MISSING = ('age',)
CODES: Mapping[str, tuple[int, ...]] = {
  'sex': (0, 1),
  'cp': (1, 2, 3, 4),
  'fbs': (0, 1),
  'restecg': (0, 1, 2),
  'exang': (0, 1),
  'slope': (1, 2, 3),
  'thal': (3, 6, 7),
}
NUM_FEATURES = 30
NUM_CLASSES = 2
FILE = downloads.File(name='heart_disease.csv', url=None)
_LABEL = 'target'
_HELD_OUT = 3  # One in three.
_SPLIT_SEED = 0
_UNCOVERED = (
  'mean and deviation of six measurements over all training patients, which '
  'standardize the features'
)


def prepare(task: config.Task, *, data_dir: pathlib.Path) -> None:
  """Finds the file."""
  del task
  downloads.require(FILE, data_dir)


def load(task: config.Task, *, data_dir: pathlib.Path) -> data_set.DataSet:
  """Returns x float32 [n, 30], y int32 [n] by hospital."""
  if task.source is config.Source.STAND_IN:
    train, test = stand_in.arrays_by_client(
      (NUM_FEATURES,), num_classes=NUM_CLASSES, clients=len(HOSPITALS)
    )
    uncovered = ()
  else:
    train, test = _read(downloads.require(FILE, data_dir))
    uncovered = (_UNCOVERED,)
  return data_set.DataSet(
    train=train,
    test=test.examples,
    num_classes=NUM_CLASSES,
    client_test=test,
    is_stand_in=task.source is config.Source.STAND_IN,
    uncovered=uncovered,
  )


def _read(path: pathlib.Path) -> stand_in.ByClient:
  with (
    raw_files.complaints(path),
    path.open(encoding='utf-8', newline='') as file,
  ):
    patients = _patients(csv.DictReader(file, strict=True))
  parts = _split(patients)
  statistics = _statistics([p for hospital in parts[0] for p in hospital])
  return tuple(_laid_out(part, statistics) for part in parts)


def _patients(reader: csv.DictReader) -> list[dict[str, object]]:
  """Returns the rows, checked, with numbers in the place of text."""
  wanted = {'hospital', *NUMBERS, *CODES, _LABEL}
  missing = wanted - set(reader.fieldnames or ())
  if missing:
    raise ValueError(f'it has no column {min(missing)}')
  patients = []
  try:
    for row in reader:
      patients.append(_patient(row, reader.line_num))
  except csv.Error as e:
    raise ValueError(f'line {reader.line_num}: {e}') from e
  if {p['hospital'] for p in patients} != set(HOSPITALS):
    raise ValueError(f'its hospitals are not {", ".join(HOSPITALS)}')
  return patients


def _patient(row: Mapping[str, str | None], line: int) -> dict[str, object]:
  hospital = row['hospital']
  if hospital not in HOSPITALS:
    raise ValueError(f'line {line}, column hospital: {hospital!r} is unknown')
  patient: dict[str, object] = {'hospital': hospital}
  for column in (*NUMBERS, *CODES, _LABEL):
    value = _number(row[column], line, column)
    if value == _NOT_MEASURED.get(column):
      value = None
    codes = (0, 1) if column == _LABEL else CODES.get(column)
    if codes and value is not None and value not in codes:
      raise ValueError(
        f'line {line}, column {column}: {row[column]!r} is not one of {codes}'
      )
    patient[column] = value
  for column in (*_NEVER_MISSING, _LABEL):
    if patient[column] is None:
      raise ValueError(f'line {line}, column {column}: the value is missing')
  return patient


def _number(text: str | None, line: int, column: str) -> float | None:
  if not text:
    return None
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not math.isfinite(value):
    raise ValueError(f'line {line}, column {column}: {text!r} is no number')
  return value


def _split(
  patients: Sequence[dict[str, object]],
) -> tuple[list[list[dict[str, object]]], list[list[dict[str, object]]]]:
  """Returns training and held-out patients, each by hospital.

  Patients whose records are equal stay together: nobody is in both.
  """
  rng = np.random.default_rng(_SPLIT_SEED)
  train, test = [], []
  for hospital in HOSPITALS:
    hospital_train, hospital_test = [], []
    for label in (0, 1):
      twins: dict[tuple, list] = {}
      for p in patients:
        if (p['hospital'], p[_LABEL]) == (hospital, label):
          twins.setdefault(tuple(p.items()), []).append(p)
      groups = list(twins.values())
      for place, number in enumerate(rng.permutation(len(groups))):
        held_out = place % _HELD_OUT == 0
        part = hospital_test if held_out else hospital_train
        part += groups[number]
    train.append(hospital_train)
    test.append(hospital_test)
  return train, test


def _statistics(
  patients: Sequence[Mapping[str, object]],
) -> dict[str, tuple[float, float]]:
  """Returns number -> mean and deviation of what was measured."""
  found = {}
  for column in NUMBERS:
    values = [p[column] for p in patients if p[column] is not None]
    found[column] = float(np.mean(values)), float(np.std(values)) or 1.0
  return found


def _laid_out(
  hospitals: Sequence[Sequence[Mapping[str, object]]],
  statistics: Mapping[str, tuple[float, float]],
) -> client_data.ClientData:
  everyone = [p for hospital in hospitals for p in hospital]
  examples = client_data.Examples(
    np.array([_features(p, statistics) for p in everyone], np.float32),
    np.array([p[_LABEL] for p in everyone], np.int32),
  )
  offsets = np.cumsum([0, *map(len, hospitals)], dtype=np.int64)
  return client_data.ClientData(examples, offsets)


def _features(
  patient: Mapping[str, object], statistics: Mapping[str, tuple[float, float]]
) -> list[float]:
  features = []
  for column in NUMBERS:
    value, (mean, deviation) = patient[column], statistics[column]
    features.append(0.0 if value is None else (value - mean) / deviation)
    if column not in _NEVER_MISSING:
      features.append(float(value is None))
  for column, codes in CODES.items():
    features += [float(patient[column] == code) for code in codes]
  return features

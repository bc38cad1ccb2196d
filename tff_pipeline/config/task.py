"""The task: data, partition and model; and the user's own files."""

import dataclasses
from typing import ClassVar

from tff_pipeline.config import choices
from tff_pipeline.config import leaves

_POOLED = tuple(
  p for p in choices.Partition if p is not choices.Partition.NATURAL
)
_FILES = tuple(map(str, choices.FileTask))
# Files whose rows have named columns; arrays of an npz file count as columns.
_TYPED = (str(choices.FileTask.CSV), str(choices.FileTask.PARQUET))
TABLES = (*_TYPED, str(choices.FileTask.NPZ))
_SQLITE = (str(choices.FileTask.TFF_SQLITE),)
_IMAGES = (str(choices.FileTask.IMAGE_FOLDER),)
_FEATURE_SKEW = (choices.Partition.FEATURE_SKEW,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(leaves.Record):
  """The data, how it is dealt to clients, and the model."""

  section: ClassVar[str] = 'task'
  name: str | None = leaves.leaf(
    'Data set with its loss and metrics: a name from tff_pipeline.tasks, or '
    'your own data by its format: ' + ', '.join(_FILES) + '.',
    required=True,
  )
  source: choices.Source = leaves.leaf(
    'real: the data set; stand_in: generated examples of the same shapes, for '
    'tests and smoke runs, whose accuracy means nothing.',
    default=choices.Source.REAL,
  )
  model: str | None = leaves.leaf(
    'Keras factory: a name from tff_pipeline.models or your own as '
    "package.module:function. Unset means the task's usual model."
  )
  partition: choices.Partition = leaves.leaf(
    'How pooled data is dealt to clients; natural keeps the clients that '
    'the data set comes with, grouped makes silos of several of them.',
    default=choices.Partition.NATURAL,
  )
  clients: int | None = leaves.leaf(
    'Number of clients that pooled data is dealt to; of groups, if grouped.',
    used_by=('partition', _POOLED),
    required=True,
    at_least=1,
  )
  concentration: float | None = leaves.leaf(
    'Dirichlet concentration: small is skewed (0.1), large is alike (100). '
    'dirichlet: of the labels of a client, in all; label_dirichlet: of the '
    'clients of a label, each, so that 0.5 there is about as skewed as 5 of '
    'ten labels here.',
    used_by=(
      'partition',
      (choices.Partition.DIRICHLET, choices.Partition.LABEL_DIRICHLET),
    ),
    required=True,
    above=0.0,
  )
  shards_per_client: int | None = leaves.leaf(
    'Shards, of the examples sorted by label, that a client gets.',
    used_by=('partition', (choices.Partition.SHARDS,)),
    required=True,
    at_least=1,
  )
  labels_per_client: int | None = leaves.leaf(
    'Number of different labels that a client has.',
    used_by=('partition', (choices.Partition.LABEL_COUNT,)),
    required=True,
    at_least=1,
  )
  size_sigma: float | None = leaves.leaf(
    'Standard deviation of the logarithm of the number of examples of a '
    'client: 0 is even, 2 very uneven.',
    used_by=('partition', (choices.Partition.QUANTITY_SKEW,)),
    required=True,
    at_least=0.0,
    at_most=10.0,
  )
  transform: choices.Transform | None = leaves.leaf(
    'How the features of clients differ: noise of another level, images '
    'turned by another angle, or another brightness.',
    used_by=('partition', _FEATURE_SKEW),
    required=True,
  )
  transform_strength: float | None = leaves.leaf(
    'Largest standard deviation of the noise, largest angle in degrees, or '
    'largest relative change of brightness (at most 1).',
    used_by=('partition', _FEATURE_SKEW),
    required=True,
    at_least=0.0,
  )
  min_examples: int | None = leaves.leaf(
    'Fewest examples of a client that pooled data is dealt to; 0 allows '
    'clients without any. Unset means 1.',
    used_by=('partition', _POOLED),
    at_least=0,
  )
  max_clients: int | None = leaves.leaf(
    'Keep only the first clients of a data set that has clients of its own, '
    'in the order of their names; they may be dealt anew.',
    at_least=1,
  )
  max_client_examples: int | None = leaves.leaf(
    'Keep only the first training examples of each client of a data set that '
    'has clients of its own.',
    at_least=1,
  )
  components: int | None = leaves.leaf(
    'Project images to so many principal components of the training images, '
    'which are computed without noise; the saved model takes projected images. '
    'Unset leaves images as they are.',
    used_by=('name', ('mnist', 'fashion_mnist')),
    at_least=1,
    at_most=784,
  )
  only_client: int | None = leaves.leaf(
    'Keep the training data of this client alone, counted from 0: a silo that '
    'trains by itself. For --algorithm.name=centralized.',
    at_least=0,
  )
  labelling: choices.Labelling | None = leaves.leaf(
    'own: each client labels by a model of its own; shared: one model and one '
    "distribution of features for all, which is FedProx's IID data.",
    used_by=('name', ('synthetic',)),
    required=True,
  )
  alpha: float | None = leaves.leaf(
    "FedProx's alpha: how much the clients' labelling models differ.",
    used_by=('labelling', (choices.Labelling.OWN,)),
    required=True,
    at_least=0.0,
  )
  beta: float | None = leaves.leaf(
    "FedProx's beta: how much the clients' features differ.",
    used_by=('labelling', (choices.Labelling.OWN,)),
    required=True,
    at_least=0.0,
  )
  path: str | None = leaves.leaf(
    'Your own file; a folder for image_folder.',
    used_by=('name', _FILES),
    required=True,
  )
  client_column: str | None = leaves.leaf(
    'Column (npz: array) that says whose row it is. Needed for natural '
    'clients; never a feature.',
    used_by=('name', TABLES),
  )
  label_column: str | None = leaves.leaf(
    'Column (npz: array, tff_sqlite: feature) that is to be predicted.',
    used_by=('name', (*TABLES, *_SQLITE)),
    required=True,
  )
  feature_columns: str | None = leaves.leaf(
    'Columns (npz: arrays, tff_sqlite: features) to predict from, separated '
    'by commas. Unset means all others.',
    used_by=('name', (*TABLES, *_SQLITE)),
  )
  categorical_columns: str | None = leaves.leaf(
    'Feature columns with categories instead of numbers, separated by commas; '
    'one-hot encoded.',
    used_by=('name', _TYPED),
  )
  target: choices.Target | None = leaves.leaf(
    'What the labels are: classes of any kind, or numbers (regression). '
    'Unset means classes.',
    used_by=('name', TABLES),
  )
  missing: choices.Missing | None = leaves.leaf(
    'Rows with an empty cell: refuse the file, fill (numbers with the mean of '
    'the training rows and a column that says so, categories with zeros), or '
    'drop the row. Unset means refuse.',
    used_by=('name', _TYPED),
  )
  scaling: choices.Scaling | None = leaves.leaf(
    'Numeric features: standardise by mean and standard deviation of the '
    'training rows (which no epsilon covers), or none. Unset means '
    'standardise; npz images of whole numbers are divided by 255 instead.',
    used_by=('name', TABLES),
  )
  split: choices.Split | None = leaves.leaf(
    'Held-out rows: those of a share of the clients, or a share of the rows '
    'of each client. Unset means within_client.',
    used_by=('name', (*TABLES, *_IMAGES)),
  )
  test_share: float | None = leaves.leaf(
    'Share that is held out. Unset means 0.2.',
    used_by=('name', (*TABLES, *_IMAGES)),
    above=0.0,
    below=1.0,
  )
  image_size: int | None = leaves.leaf(
    'Width and height that images are resized to, in pixels.',
    used_by=('name', _IMAGES),
    required=True,
    at_least=1,
    at_most=4096,
  )
  image_mode: choices.ImageMode | None = leaves.leaf(
    'Channels of the images. Unset means rgb.', used_by=('name', _IMAGES)
  )
  classes: int | None = leaves.leaf(
    'Number of classes; labels are whole numbers from 0.',
    used_by=('name', _SQLITE),
    required=True,
    at_least=2,
  )
  test_examples: int | None = leaves.leaf(
    'Most held-out examples that are loaded, from whole clients. Unset means '
    '10000.',
    used_by=('name', _SQLITE),
    at_least=1,
  )

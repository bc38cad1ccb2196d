"""The choices: every enum that a leaf can take."""

import enum


class Source(enum.StrEnum):
  """Where a task's examples come from."""

  REAL = 'real'
  STAND_IN = 'stand_in'


class Labelling(enum.StrEnum):
  """Who labels the examples of FedProx's synthetic data."""

  OWN = 'own'
  SHARED = 'shared'


class Partition(enum.StrEnum):
  """How a pooled data set is dealt to clients."""

  NATURAL = 'natural'
  GROUPED = 'grouped'
  IID = 'iid'
  DIRICHLET = 'dirichlet'
  LABEL_DIRICHLET = 'label_dirichlet'
  SHARDS = 'shards'
  LABEL_COUNT = 'label_count'
  QUANTITY_SKEW = 'quantity_skew'
  FEATURE_SKEW = 'feature_skew'


class Transform(enum.StrEnum):
  """What makes the features of one client differ from those of another."""

  NOISE = 'noise'
  ROTATION = 'rotation'
  BRIGHTNESS = 'brightness'


class FileTask(enum.StrEnum):
  """Tasks whose data is the user's own file; values of `task.name`."""

  CSV = 'csv'
  PARQUET = 'parquet'
  NPZ = 'npz'
  IMAGE_FOLDER = 'image_folder'
  TFF_SQLITE = 'tff_sqlite'


class Split(enum.StrEnum):
  """Which rows of the user's own data are held out."""

  BY_CLIENT = 'by_client'
  WITHIN_CLIENT = 'within_client'


class Target(enum.StrEnum):
  """What the labels of the user's own data are."""

  CLASSES = 'classes'
  NUMBERS = 'numbers'


class Missing(enum.StrEnum):
  """What becomes of a row of the user's own data with an empty cell."""

  REFUSE = 'refuse'
  FILL = 'fill'
  DROP = 'drop'


class Scaling(enum.StrEnum):
  """What is done to the numeric features of the user's own data."""

  STANDARDISE = 'standardise'
  NONE = 'none'


class ImageMode(enum.StrEnum):
  """Channels that images of the user's own are read with."""

  GREY = 'grey'
  RGB = 'rgb'


class Sampling(enum.StrEnum):
  """How a round's cohort is drawn from the population."""

  POISSON = 'poisson'
  FIXED_SIZE = 'fixed_size'
  FULL = 'full'


class Optimizer(enum.StrEnum):
  """Names of `tff.learning.optimizers`."""

  SGD = 'sgd'
  ADAM = 'adam'
  ADAGRAD = 'adagrad'
  YOGI = 'yogi'


class Weighting(enum.StrEnum):
  """Weight of a client's update in the average."""

  UNIFORM = 'uniform'
  NUM_EXAMPLES = 'num_examples'


class Batches(enum.StrEnum):
  """How centralized training draws its batches."""

  POISSON = 'poisson'
  FIXED_SIZE = 'fixed_size'


class AlgorithmName(enum.StrEnum):
  """Federated algorithms, one file each in `algorithms/`."""

  FED_AVG = 'fed_avg'
  FED_SGD = 'fed_sgd'
  FED_PROX = 'fed_prox'
  MIME_LITE = 'mime_lite'
  Q_FED_AVG = 'q_fed_avg'
  SCAFFOLD = 'scaffold'
  FED_DYN = 'fed_dyn'
  FED_PER = 'fed_per'
  FED_REP = 'fed_rep'
  FED_RECON = 'fed_recon'
  CENTRALIZED = 'centralized'


REMEMBERED_LAYERS = (AlgorithmName.FED_PER, AlgorithmName.FED_REP)
"""Algorithms whose clients keep layers of their own between rounds."""

LOCAL_LAYERS = (*REMEMBERED_LAYERS, AlgorithmName.FED_RECON)
"""Algorithms in which some layers never leave a client."""


class Aggregator(enum.StrEnum):
  """How the updates of a cohort become one; `aggregation.robust`."""

  MEAN = 'mean'
  CLIPPED_MEAN = 'clipped_mean'
  ZEROED_MEAN = 'zeroed_mean'
  ADAPTIVE_MEAN = 'adaptive_mean'
  MEDIAN = 'median'
  TRIMMED_MEAN = 'trimmed_mean'
  GEOMETRIC_MEDIAN = 'geometric_median'


class Decay(enum.StrEnum):
  """How a learning rate falls over the rounds; `optimizers.rate`."""

  CONSTANT = 'constant'
  INVERSE_SQRT = 'inverse_sqrt'
  EXPONENTIAL = 'exponential'
  LINEAR = 'linear'
  COSINE = 'cosine'


class CompressionName(enum.StrEnum):
  """How an update is encoded; `client_work.compression`."""

  NONE = 'none'
  QUANTIZATION = 'quantization'
  TOP_K = 'top_k'
  RANDOM_K = 'random_k'


class ErrorFeedback(enum.StrEnum):
  """Whether a client sends later what an encoding lost."""

  ON = 'on'
  OFF = 'off'


class Rounding(enum.StrEnum):
  """How an entry becomes a level."""

  NEAREST = 'nearest'
  STOCHASTIC = 'stochastic'


class Rotation(enum.StrEnum):
  """What happens to a vector before it is quantized."""

  NONE = 'none'
  HADAMARD = 'hadamard'


class AttackName(enum.StrEnum):
  """What dishonest clients do; `experiment.attacking`."""

  NONE = 'none'
  LABEL_FLIP = 'label_flip'
  BACKDOOR = 'backdoor'
  SIGN_FLIP = 'sign_flip'
  SCALED_UPDATE = 'scaled_update'


class PersonalizationName(enum.StrEnum):
  """How clients that never trained make the model theirs."""

  NONE = 'none'
  FINE_TUNING = 'fine_tuning'


class Clipping(enum.StrEnum):
  """How an update is brought within the clip norm; `keyed_noise`."""

  FLAT = 'flat'
  PER_LAYER = 'per_layer'


class Mechanism(enum.StrEnum):
  """Differential privacy mechanisms; see docs/privacy.md."""

  NONE = 'none'
  GAUSSIAN = 'gaussian'
  GAUSSIAN_ADAPTIVE = 'gaussian_adaptive'
  LOCAL = 'local'
  DP_SGD = 'dp_sgd'


class Relation(enum.StrEnum):
  """Which two data sets are neighbours, for one user's whole data."""

  ADD_OR_REMOVE_ONE = 'add_or_remove_one'
  REPLACE_ONE = 'replace_one'
  ZERO_OUT = 'zero_out'


class SolveFor(enum.StrEnum):
  """The leaf that is solved for a target epsilon."""

  NOISE_MULTIPLIER = 'noise_multiplier'
  ROUNDS = 'rounds'
  CLIENTS_PER_ROUND = 'clients_per_round'


class EngineName(enum.StrEnum):
  """What executes a round."""

  IN_PROCESS = 'in_process'
  TFF_RUNTIME = 'tff_runtime'


class Stragglers(enum.StrEnum):
  """What becomes of clients that do not get through all epochs in time."""

  NONE = 'none'
  DROP = 'drop'
  PARTIAL = 'partial'


class Shuffle(enum.StrEnum):
  """Order of a client's examples within an epoch."""

  ON = 'on'
  OFF = 'off'

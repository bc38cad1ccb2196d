"""What an experiment is: frozen records, valid from birth.

Every leaf is a flag (`Privacy.clip_norm` is `--privacy.clip_norm`); see
`leaves` for what a leaf is. One module per group of leaves, `checks` for what
they demand of one another.
"""

from tff_pipeline.config.attack import Attack
from tff_pipeline.config.builders import fixed_size
from tff_pipeline.config.builders import full
from tff_pipeline.config.builders import gaussian
from tff_pipeline.config.builders import no_privacy
from tff_pipeline.config.builders import poisson
from tff_pipeline.config.choices import LOCAL_LAYERS
from tff_pipeline.config.choices import REMEMBERED_LAYERS
from tff_pipeline.config.choices import Aggregator
from tff_pipeline.config.choices import AlgorithmName
from tff_pipeline.config.choices import AttackName
from tff_pipeline.config.choices import Batches
from tff_pipeline.config.choices import Clipping
from tff_pipeline.config.choices import CompressionName
from tff_pipeline.config.choices import Decay
from tff_pipeline.config.choices import EngineName
from tff_pipeline.config.choices import ErrorFeedback
from tff_pipeline.config.choices import FileTask
from tff_pipeline.config.choices import ImageMode
from tff_pipeline.config.choices import Labelling
from tff_pipeline.config.choices import Mechanism
from tff_pipeline.config.choices import Missing
from tff_pipeline.config.choices import Optimizer
from tff_pipeline.config.choices import Partition
from tff_pipeline.config.choices import PersonalizationName
from tff_pipeline.config.choices import Relation
from tff_pipeline.config.choices import Rotation
from tff_pipeline.config.choices import Rounding
from tff_pipeline.config.choices import Sampling
from tff_pipeline.config.choices import Scaling
from tff_pipeline.config.choices import Shuffle
from tff_pipeline.config.choices import SolveFor
from tff_pipeline.config.choices import Source
from tff_pipeline.config.choices import Split
from tff_pipeline.config.choices import Stragglers
from tff_pipeline.config.choices import Target
from tff_pipeline.config.choices import Transform
from tff_pipeline.config.choices import Weighting
from tff_pipeline.config.claims import Claim
from tff_pipeline.config.claims import Row
from tff_pipeline.config.compression import Compression
from tff_pipeline.config.leaves import LeafRule
from tff_pipeline.config.leaves import checked_leaf
from tff_pipeline.config.leaves import leaf_type
from tff_pipeline.config.personalization import Personalization
from tff_pipeline.config.plain import from_dict
from tff_pipeline.config.plain import to_dict
from tff_pipeline.config.plain import with_solution
from tff_pipeline.config.privacy import Privacy
from tff_pipeline.config.records import Experiment
from tff_pipeline.config.records import Terms
from tff_pipeline.config.records import terms
from tff_pipeline.config.rules import AGGREGATORS
from tff_pipeline.config.rules import ALGORITHMS
from tff_pipeline.config.rules import CLIENT_STATES_UNDER_PRIVACY
from tff_pipeline.config.task import Task
from tff_pipeline.config.training import Algorithm
from tff_pipeline.config.training import Client
from tff_pipeline.config.training import Cohort
from tff_pipeline.config.training import Server

__all__ = [
  'AGGREGATORS',
  'ALGORITHMS',
  'CLIENT_STATES_UNDER_PRIVACY',
  'LOCAL_LAYERS',
  'REMEMBERED_LAYERS',
  'Aggregator',
  'Algorithm',
  'AlgorithmName',
  'Attack',
  'AttackName',
  'Batches',
  'Claim',
  'Client',
  'Cohort',
  'Compression',
  'Clipping',
  'CompressionName',
  'Decay',
  'EngineName',
  'ErrorFeedback',
  'Experiment',
  'FileTask',
  'ImageMode',
  'Labelling',
  'LeafRule',
  'Mechanism',
  'Missing',
  'Optimizer',
  'Partition',
  'Personalization',
  'PersonalizationName',
  'Privacy',
  'Relation',
  'Rotation',
  'Rounding',
  'Row',
  'Sampling',
  'Scaling',
  'Server',
  'Shuffle',
  'SolveFor',
  'Source',
  'Split',
  'Stragglers',
  'Target',
  'Task',
  'Terms',
  'Transform',
  'Weighting',
  'checked_leaf',
  'fixed_size',
  'from_dict',
  'full',
  'gaussian',
  'leaf_type',
  'no_privacy',
  'poisson',
  'terms',
  'to_dict',
  'with_solution',
]

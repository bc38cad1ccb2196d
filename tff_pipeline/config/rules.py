"""What the chosen algorithm and aggregator demand of other leaves, and why.

An algorithm's entry is the part of its row in `algorithms.table` that is known
without TensorFlow: a combination that does not work is refused when a config
is made, wherever that is. Under privacy, whatever shapes the model has to be
noised by the mechanism, or the combination stands here.
"""

from collections.abc import Mapping
import dataclasses
import typing
from typing import Any

from tff_pipeline import validate
from tff_pipeline.config import choices

if typing.TYPE_CHECKING:
  from tff_pipeline.config import records

_Aggregator = choices.Aggregator
_Algorithm = choices.AlgorithmName
_Mechanism = choices.Mechanism


@dataclasses.dataclass(frozen=True)
class Rule:
  """What a choice demands of one other leaf.

  Attributes:
    flag: Dotted name of the leaf.
    allowed: The values that it may have; `None` is unset.
    why: The reason, in one clause.
  """

  flag: str
  allowed: tuple[Any, ...]
  why: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Algorithm:
  """What is known of an algorithm without building it.

  Attributes:
    paper: Its source.
    releases: Every aggregate that leaves the clients and shapes the model.
      Beside these, train metrics leave them un-noised and named so.
    rules: What it demands of other leaves.
  """

  paper: str
  releases: tuple[str, ...]
  rules: tuple[Rule, ...] = ()


def _without_privacy(why: str) -> tuple[Rule, ...]:
  return (Rule('privacy.mechanism', (_Mechanism.NONE,), why),)


_ONE_PASS = 'its client takes no steps: it sends one gradient at fixed weights'
_NO_CLIENT_OPTIMIZER = tuple(
  Rule(f'client.{leaf}', (value,), _ONE_PASS)
  for leaf, value in {
    'epochs': 1,
    'optimizer': choices.Optimizer.SGD,
    'learning_rate': None,
    'momentum': None,
    'decay': choices.Decay.CONSTANT,
    'warmup_rounds': None,
    'max_steps': None,
  }.items()
)
_NO_STEPS_TO_NOISE = (
  'noise per local step needs local steps; fed_avg with one epoch and a '
  'batch size of the largest client is the private form of the same'
)
_LOCAL_STEPS = (
  'its steps on local layers are beside the epochs that are priced, and would '
  'see examples once more'
)
_UNPRICED_LOCAL_STEPS = (
  Rule(
    'privacy.mechanism',
    tuple(m for m in _Mechanism if m is not _Mechanism.DP_SGD),
    _LOCAL_STEPS,
  ),
  Rule('privacy.example_clip_norm', (None,), _LOCAL_STEPS),
)

ALGORITHMS: Mapping[choices.AlgorithmName, Algorithm] = {
  _Algorithm.FED_AVG: Algorithm(
    paper='McMahan et al. 2017, arXiv:1602.05629; Reddi et al. 2021, '
    'arXiv:2003.00295',
    releases=('model_update',),
  ),
  _Algorithm.FED_SGD: Algorithm(
    paper='McMahan et al. 2017, arXiv:1602.05629',
    releases=('gradient',),
    rules=(
      *_NO_CLIENT_OPTIMIZER,
      Rule(
        'privacy.mechanism',
        tuple(m for m in _Mechanism if m is not _Mechanism.DP_SGD),
        _NO_STEPS_TO_NOISE,
      ),
      Rule('privacy.example_clip_norm', (None,), _NO_STEPS_TO_NOISE),
    ),
  ),
  _Algorithm.FED_PROX: Algorithm(
    paper='Li et al. 2020, arXiv:1812.06127', releases=('model_update',)
  ),
  _Algorithm.MIME_LITE: Algorithm(
    paper='Karimireddy et al. 2021, arXiv:2008.03606',
    releases=('model_update', 'full_gradient'),
    rules=(
      *_without_privacy(
        'the gradient that moves the optimizer state is a second release from '
        'the same cohort, which no mechanism here clips and noises'
      ),
      Rule(
        'algorithm.aggregator',
        (_Aggregator.MEAN,),
        'its gradient aggregate would stay a mean',
      ),
    ),
  ),
  _Algorithm.Q_FED_AVG: Algorithm(
    paper='Li et al. 2020, arXiv:1905.10497',
    releases=('weighted_model_update', 'sum_of_weights'),
    rules=(
      *_without_privacy(
        'the weight of an update is an un-noised function of private losses'
      ),
      Rule(
        'algorithm.aggregator',
        (_Aggregator.MEAN,),
        'its weights are its fairness, and a robust statistic drops them',
      ),
      Rule(
        'algorithm.weighting',
        (choices.Weighting.UNIFORM,),
        'it weighs updates by losses, not by examples',
      ),
      Rule(
        'client.optimizer',
        (choices.Optimizer.SGD,),
        'its weights take 1 / learning rate for the smoothness of the loss',
      ),
      Rule(
        'client.decay',
        (choices.Decay.CONSTANT,),
        'its weights hold the learning rate',
      ),
      Rule(
        'client.warmup_rounds', (None,), 'its weights hold the learning rate'
      ),
    ),
  ),
  _Algorithm.FED_PER: Algorithm(
    paper='Arivazhagan et al. 2019, arXiv:1912.00818',
    releases=('shared_layers_update',),
  ),
  _Algorithm.FED_REP: Algorithm(
    paper='Collins et al. 2021, arXiv:2102.07078',
    releases=('shared_layers_update',),
    rules=_UNPRICED_LOCAL_STEPS,
  ),
  _Algorithm.FED_RECON: Algorithm(
    paper='Singhal et al. 2021, arXiv:2102.03448',
    releases=('shared_layers_update',),
    rules=_UNPRICED_LOCAL_STEPS,
  ),
  _Algorithm.CENTRALIZED: Algorithm(
    paper='Abadi et al. 2016, arXiv:1607.00133',
    releases=(),
    rules=(
      Rule('algorithm.aggregator', (_Aggregator.MEAN,), 'nobody sends updates'),
      Rule('client.decay', (choices.Decay.CONSTANT,), 'not built for it'),
      Rule('client.warmup_rounds', (None,), 'not built for it'),
      Rule('server.decay', (choices.Decay.CONSTANT,), 'it has no server step'),
      Rule('server.warmup_rounds', (None,), 'it has no server step'),
      Rule('attack.name', (choices.AttackName.NONE,), 'it has no clients'),
      Rule(
        'compression.name',
        (choices.CompressionName.NONE,),
        'nothing is sent',
      ),
      Rule('compression.broadcast_bits', (None,), 'nothing is sent'),
    ),
  ),
}

_UNNOISED_STATISTIC = Rule(
  'privacy.mechanism',
  (_Mechanism.NONE, _Mechanism.DP_SGD),
  'it shapes the model by a function of the updates that is no clipped and '
  'noised sum; after dp_sgd it is post-processing',
)
_UNWEIGHTED = Rule(
  'algorithm.weighting',
  (choices.Weighting.UNIFORM,),
  'it counts each client once',
)

AGGREGATORS: Mapping[choices.Aggregator, tuple[Rule, ...]] = {
  _Aggregator.MEAN: (),
  _Aggregator.CLIPPED_MEAN: (_UNNOISED_STATISTIC,),
  _Aggregator.ZEROED_MEAN: (_UNNOISED_STATISTIC,),
  _Aggregator.ADAPTIVE_MEAN: (_UNNOISED_STATISTIC,),
  _Aggregator.MEDIAN: (_UNNOISED_STATISTIC, _UNWEIGHTED),
  _Aggregator.TRIMMED_MEAN: (_UNNOISED_STATISTIC, _UNWEIGHTED),
  _Aggregator.GEOMETRIC_MEDIAN: (_UNNOISED_STATISTIC,),
}

_COMPRESSED = (
  Rule(
    'privacy.mechanism',
    tuple(m for m in _Mechanism if m is not _Mechanism.LOCAL),
    'compression comes before the clip, and the noise of every entry that '
    'follows on the client would have to be sent in full',
  ),
)


def check(experiment: 'records.Experiment') -> None:
  """Raises `UsageError` if a choice and another leaf do not go together."""
  algorithm = experiment.algorithm
  compression = experiment.compression.name
  tables = {
    'algorithm.name': (algorithm.name, ALGORITHMS[algorithm.name].rules),
    'algorithm.aggregator': (
      algorithm.aggregator,
      AGGREGATORS[algorithm.aggregator],
    ),
    'compression.name': (
      compression,
      () if compression is choices.CompressionName.NONE else _COMPRESSED,
    ),
  }
  for flag, (chosen, rules) in tables.items():
    for rule in rules:
      _check_rule(experiment, rule, chosen=f'--{flag}={chosen}')


def _check_rule(
  experiment: 'records.Experiment', rule: Rule, *, chosen: str
) -> None:
  section, _, leaf = rule.flag.partition('.')
  found = getattr(getattr(experiment, section), leaf)
  if found in rule.allowed:
    return
  allowed = ' or '.join(
    'no value' if value is None else str(value) for value in rule.allowed
  )
  raise validate.error(
    rule.flag, expected=f'{allowed} with {chosen}: {rule.why}', found=found
  )


def takes_local_steps(name: choices.AlgorithmName) -> bool:
  """Returns whether an algorithm has a client optimizer."""
  rules = {rule.flag: rule for rule in ALGORITHMS[name].rules}
  rule = rules.get('client.learning_rate')
  return rule is None or None not in rule.allowed

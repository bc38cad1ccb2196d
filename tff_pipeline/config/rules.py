"""What the chosen algorithm and aggregator demand of other leaves, and why.

An algorithm's entry is the part of its row in `algorithms.table` that is known
without TensorFlow: a combination that does not work is refused when a config
is made, wherever that is. Under privacy, whatever shapes the model has to be
noised by the mechanism, or the combination stands here.
"""

from collections.abc import Mapping
import dataclasses
import operator
import typing
from typing import Any

from tff_pipeline import validate
from tff_pipeline.config import choices

if typing.TYPE_CHECKING:
  from tff_pipeline.config import records

_Aggregator = choices.Aggregator
_Algorithm = choices.AlgorithmName
_Mechanism = choices.Mechanism
_Sampling = choices.Sampling


@dataclasses.dataclass(frozen=True)
class Rule:
  """What a choice demands of one other leaf.

  Attributes:
    flag: Dotted name of the leaf.
    allowed: The values that it may have; `None` is unset.
    why: The reason, in one clause.
    in_words: The allowed values where they are too many to be listed.
  """

  flag: str
  allowed: tuple[Any, ...]
  why: str
  in_words: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Algorithm:
  """What is known of an algorithm without building it.

  Attributes:
    paper: Its source.
    releases: Every aggregate that leaves the clients and shapes the model.
      Beside these, train metrics leave them un-noised and named so.
    client_state: What a client keeps between its participations; unset means
      nothing.
    state_mechanisms: The privacy mechanisms that this state goes with. For each
      but `none`, the algorithm's docstring says why its statement still holds.
    rules: What it demands of other leaves.
  """

  paper: str
  releases: tuple[str, ...]
  client_state: str | None = None
  state_mechanisms: tuple[choices.Mechanism, ...] = (_Mechanism.NONE,)
  rules: tuple[Rule, ...] = ()


def _without_privacy(why: str) -> tuple[Rule, ...]:
  return (Rule('privacy.mechanism', (_Mechanism.NONE,), why),)


CLIENT_STATES_UNDER_PRIVACY = (
  'what a client keeps between rounds shapes all its later updates, and no '
  'statement here was worked out for that'
)
# The exception, worked out in `algorithms.partial`: a round releases an update
# that is clipped and noised, whatever the client's own layers are.
_LOCAL_LAYERS_UNDER = (
  _Mechanism.NONE,
  _Mechanism.GAUSSIAN,
  _Mechanism.GAUSSIAN_ADAPTIVE,
  _Mechanism.LOCAL,
)
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
_PLAIN_STEPS = (
  'a control variate is the mean gradient of a client, which is inferred from '
  'how far it came in its steps: right for plain SGD alone'
)
_SUM_OF_ALL_ROUNDS = (
  'its server adds up the updates of all rounds, each client counted once'
)
_NO_SERVER_OPTIMIZER = (
  "its server step is its own: the cohort's mean and the sum of all rounds"
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
        'client.momentum',
        (None, 0.0),
        'its weights infer a gradient from how far plain SGD came',
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
  _Algorithm.SCAFFOLD: Algorithm(
    paper='Karimireddy et al. 2020, arXiv:1910.06378',
    releases=('model_update', 'control_variate_change'),
    client_state='control variate',
    rules=(
      *_without_privacy(
        'the change of the control variates is a second release from the same '
        'cohort, which user-level mechanisms do not clip and noise; and '
        + CLIENT_STATES_UNDER_PRIVACY
      ),
      Rule(
        'algorithm.aggregator',
        (_Aggregator.MEAN,),
        'the aggregate of its control variates would stay a mean',
      ),
      Rule(
        'algorithm.weighting',
        (choices.Weighting.UNIFORM,),
        'its control variates are means over clients, each counted once',
      ),
      Rule('client.optimizer', (choices.Optimizer.SGD,), _PLAIN_STEPS),
      Rule('client.momentum', (None, 0.0), _PLAIN_STEPS),
    ),
  ),
  _Algorithm.FED_DYN: Algorithm(
    paper='Acar et al. 2021, arXiv:2111.04263',
    releases=('model_update',),
    client_state='gradient of its loss',
    rules=(
      Rule('algorithm.aggregator', (_Aggregator.MEAN,), _SUM_OF_ALL_ROUNDS),
      Rule(
        'algorithm.weighting', (choices.Weighting.UNIFORM,), _SUM_OF_ALL_ROUNDS
      ),
      Rule(
        'compression.name',
        (choices.CompressionName.NONE,),
        'what the server adds up has to be what the clients have kept',
      ),
      *(
        Rule(f'server.{leaf}', (value,), _NO_SERVER_OPTIMIZER)
        for leaf, value in {
          'optimizer': choices.Optimizer.SGD,
          'learning_rate': 1.0,
          'momentum': None,
          'decay': choices.Decay.CONSTANT,
          'warmup_rounds': None,
        }.items()
      ),
    ),
  ),
  _Algorithm.FED_PER: Algorithm(
    paper='Arivazhagan et al. 2019, arXiv:1912.00818',
    releases=('shared_layers_update',),
    client_state='local layers',
    # Of dp_sgd each step is noised, those on local layers included.
    state_mechanisms=(*_LOCAL_LAYERS_UNDER, _Mechanism.DP_SGD),
  ),
  _Algorithm.FED_REP: Algorithm(
    paper='Collins et al. 2021, arXiv:2102.07078',
    releases=('shared_layers_update',),
    client_state='local layers',
    state_mechanisms=_LOCAL_LAYERS_UNDER,
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
      Rule(
        'privacy.mechanism',
        (_Mechanism.NONE, _Mechanism.DP_SGD),
        'it knows examples, not whose they are',
      ),
      Rule('cohort.sampling', (_Sampling.FULL,), 'all data is in one place'),
      Rule(
        'engine', (choices.EngineName.IN_PROCESS,), 'it is no process of TFF'
      ),
      Rule('algorithm.aggregator', (_Aggregator.MEAN,), 'nobody sends updates'),
      *(
        Rule(f'client.{leaf}', (None,), 'its steps are priced as epochs')
        for leaf in ('max_examples', 'max_steps')
      ),
      *(
        Rule(f'server.{leaf}', (value,), 'it has no server step')
        for leaf, value in {
          'learning_rate': None,
          'decay': choices.Decay.CONSTANT,
          'warmup_rounds': None,
        }.items()
      ),
      Rule('attack.name', (choices.AttackName.NONE,), 'it has no clients'),
      Rule(
        'personalization.name',
        (choices.PersonalizationName.NONE,),
        'it has no clients',
      ),
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

_FEEDBACK = (
  *_without_privacy(
    'the residual that a client keeps is private data which no clip bounds, '
    'and it comes back in later rounds; ' + CLIENT_STATES_UNDER_PRIVACY
  ),
  Rule(
    'algorithm.name',
    (_Algorithm.FED_AVG, _Algorithm.FED_PROX, _Algorithm.FED_SGD),
    'the residual makes up for a loss if the same client sends the same kind '
    'of update at the same weight again; q_fed_avg weighs anew each round, '
    'and of mime_lite and scaffold half of what is sent is not encoded',
  ),
  Rule(
    'algorithm.aggregator',
    (_Aggregator.MEAN,),
    'residuals cancel in the mean of updates, not in a robust statistic',
  ),
  Rule(
    'compression.bits',
    (None, *range(2, 17)),
    'with one bit an error is as long as the range, and residuals grow',
    in_words='2 or more',
  ),
  Rule(
    'compression.rotation',
    (None, choices.Rotation.NONE),
    'a fresh rotation each round spreads the residual, and no bound holds it',
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
    'compression.error_feedback': (
      experiment.compression.error_feedback,
      _FEEDBACK if has_feedback(experiment) else (),
    ),
  }
  if ALGORITHMS[algorithm.name].client_state is not None:
    chosen, rules = tables['algorithm.name']
    tables['algorithm.name'] = chosen, (*rules, _state_rule(algorithm.name))
  for flag, (chosen, rules) in tables.items():
    for rule in rules:
      _check_rule(experiment, rule, chosen=f'--{flag}={chosen}')


def _state_rule(name: choices.AlgorithmName) -> Rule:
  return Rule(
    'privacy.mechanism',
    ALGORITHMS[name].state_mechanisms,
    CLIENT_STATES_UNDER_PRIVACY,
  )


def has_feedback(experiment: 'records.Experiment') -> bool:
  """Returns whether clients keep what the encoding of an update lost."""
  return experiment.compression.error_feedback is choices.ErrorFeedback.ON


def _check_rule(
  experiment: 'records.Experiment', rule: Rule, *, chosen: str
) -> None:
  found = operator.attrgetter(rule.flag)(experiment)
  if found in rule.allowed:
    return
  allowed = rule.in_words or ' or '.join(
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

"""The privacy mechanism and its terms."""

import dataclasses
from typing import ClassVar

from tff_pipeline.config import choices
from tff_pipeline.config import leaves

CENTRAL = (choices.Mechanism.GAUSSIAN, choices.Mechanism.GAUSSIAN_ADAPTIVE)
USER_LEVEL = (*CENTRAL, choices.Mechanism.LOCAL)
NOISY = (*USER_LEVEL, choices.Mechanism.DP_SGD)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Privacy(leaves.Record):
  """The mechanism; nothing that it promises has a default.

  Noise is stated as a multiplier: its standard deviation over the clip norm.
  What it is added to depends on the mechanism:

  - `gaussian`, `gaussian_adaptive`: the sum of the clipped updates of a cohort;
  - `local`: one clipped update, on the client;
  - `dp_sgd`: the sum of the clipped per-example gradients of one local step.

  The `example_` leaves put example-level DP-SGD on the clients beneath a
  user-level mechanism; the run then has two statements.
  """

  section: ClassVar[str] = 'privacy'

  mechanism: choices.Mechanism | None = leaves.leaf(
    'Differential privacy mechanism.', required=True
  )
  noise_multiplier: float | None = leaves.leaf(
    'Noise standard deviation over clip_norm: on the sum of updates (local: '
    'on one update; dp_sgd: on the sum of the gradients of a step). 0 clips '
    'without noise (epsilon is infinite).',
    used_by=('mechanism', NOISY),
    at_least=0.0,
  )
  clip_norm: float | None = leaves.leaf(
    'Largest L2 norm of one update, in units of the model weights (dp_sgd: '
    'of the gradient of one example; gaussian_adaptive: before the first '
    'round).',
    used_by=('mechanism', NOISY),
    required=True,
    above=0.0,
  )
  clipping: choices.Clipping | None = leaves.leaf(
    'flat (unset means this): an update is clipped as a whole; per_layer: each '
    'of its m tensors to clip_norm / sqrt(m), so that the whole is within '
    'clip_norm as well.',
    used_by=('mechanism', USER_LEVEL),
  )
  delta: float | None = leaves.leaf(
    'Delta of the (epsilon, delta) statement; below 1/population.',
    used_by=('mechanism', NOISY),
    required=True,
    above=0.0,
    below=1.0,
  )
  population: int | None = leaves.leaf(
    'Number of clients that could take part (centralized: of examples); '
    'checked against the data.',
    used_by=('mechanism', NOISY),
    required=True,
    at_least=1,
  )
  relation: choices.Relation | None = leaves.leaf(
    'Neighbouring relation of the guarantee; zero_out replaces the update of '
    "one client by zero. Unset means the sampling's own: add_or_remove_one "
    'for poisson and full, replace_one for fixed_size.',
    used_by=('mechanism', NOISY),
  )
  target_epsilon: float | None = leaves.leaf(
    'Solve --privacy.solve_for so that the final epsilon is at most this.',
    used_by=('mechanism', NOISY),
    above=0.0,
  )
  solve_for: choices.SolveFor | None = leaves.leaf(
    'The leaf that --privacy.target_epsilon solves; unset means '
    'noise_multiplier.',
    used_by=('mechanism', NOISY),
  )
  target_quantile: float | None = leaves.leaf(
    'Share of updates that the adaptive clip norm leaves unclipped, in [0, 1].',
    used_by=('mechanism', (choices.Mechanism.GAUSSIAN_ADAPTIVE,)),
    required=True,
    at_least=0.0,
    at_most=1.0,
  )
  clip_learning_rate: float | None = leaves.leaf(
    'Learning rate of the adaptive clip norm, on its logarithm.',
    used_by=('mechanism', (choices.Mechanism.GAUSSIAN_ADAPTIVE,)),
    required=True,
    above=0.0,
  )
  clipped_count_stddev: float | None = leaves.leaf(
    'Noise standard deviation on the count of unclipped updates; Andrew et '
    'al. suggest a twentieth of the cohort. More than half of '
    'noise_multiplier, which the two releases share.',
    used_by=('mechanism', (choices.Mechanism.GAUSSIAN_ADAPTIVE,)),
    required=True,
    above=0.0,
  )
  noise_cohort_size: int | None = leaves.leaf(
    'Extrapolates: noise and price are those of a cohort of this size from '
    '--privacy.population clients, simulated on a smaller cohort. The run '
    'itself does not have the privacy that is stated.',
    used_by=('mechanism', CENTRAL),
    at_least=1,
  )
  example_noise_multiplier: float | None = leaves.leaf(
    'Noise standard deviation on the sum of the gradients of a local step, '
    'over example_clip_norm: DP-SGD beneath the user-level mechanism.',
    used_by=('mechanism', USER_LEVEL),
    at_least=0.0,
  )
  example_clip_norm: float | None = leaves.leaf(
    'Largest L2 norm of the gradient of one example.',
    used_by=('mechanism', USER_LEVEL),
    above=0.0,
  )
  noise_seed: int | None = leaves.leaf(
    'Fixes the noise key: a reproducible simulation, not a private release. '
    'Unset draws the key from the operating system.',
    used_by=('mechanism', NOISY),
    at_least=0,
  )

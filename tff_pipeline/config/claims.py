"""What an experiment file promises, and what its paper published."""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

from tff_pipeline import validate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """A figure of a paper, and which runs of the experiment measure the same.

  The figure is the held-out accuracy after the last round; or, with a target,
  the first evaluated round in which the accuracy reaches it.

  Attributes:
    name: What the figure is about, in few words.
    arm: Dotted leaf -> value, of the runs that measure it.
    published: The figure; `None` where the source gives none to compare with.
    target: Accuracy to reach, in (0, 1); unset for a final accuracy.
    tuned: Leaves whose best value is taken, by this very figure, as the paper
      took it.
    epsilon: The epsilon that is published beside it; `None` if there is none.
  """

  name: str
  arm: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  published: float | None = None
  target: float | None = None
  tuned: tuple[str, ...] = ()
  epsilon: float | None = None

  def __post_init__(self) -> None:
    if self.target is not None:
      validate.check_number('target', self.target, above=0.0, below=1.0)
      if self.published is not None:
        validate.check_number('published', self.published, at_least=1)
    elif self.published is not None:
      validate.check_number('published', self.published, above=0, at_most=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
  """What an experiment file promises, checked by tests and by its reader.

  Attributes:
    epsilon: Headline epsilon at the last round, to two significant decimals;
      infinite without a mechanism.
    source: Who measured or published the figures, and on how many seeds.
    accuracy: Lowest and highest final accuracy over the named seeds; unset
      where the rows say it.
    rows: Figures of a paper, for the table of reproductions.
    metric: Column of the metrics whose curves are drawn.
    difference: Where our figures differ from those, and why, as far as it is
      known; whole sentences.
  """

  epsilon: float
  source: str
  accuracy: tuple[float, float] | None = None
  rows: tuple[Row, ...] = ()
  metric: str = 'test_accuracy'
  difference: str = ''

  def __post_init__(self) -> None:
    if math.isnan(self.epsilon) or self.epsilon < 0:
      raise validate.error(
        'epsilon', expected='a number of at least 0', found=self.epsilon
      )
    if not self.source:
      raise validate.error('source', expected='a source', found='nothing')
    names = [row.name for row in self.rows]
    for name in names:
      if names.count(name) > 1:
        raise validate.error('rows', expected='one of a name', found=name)

"""What a data set looks like: numbers that describe it, client by client."""

import dataclasses
import enum

import numpy as np

from tff_pipeline.data import client_data

# Of more clients, so many are looked at: an even choice over all of them.
MAX_CLIENTS = 200
_MAX_CLASSES = 1000
# What a flat row needs to be drawn as an image: 7x7 or more.
_MIN_SIDE = 7


class Kind(enum.StrEnum):
  """What an example can be shown as."""

  IMAGES = 'images'
  SEQUENCES = 'sequences'
  TOKENS = 'tokens'
  FEATURES = 'features'


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Portrait:
  """A description of the training data.

  Attributes:
    sizes: Examples of each client; int64[clients].
    shown: Clients that were looked into; int64[k], k at most MAX_CLIENTS.
    examples: The examples of these.
    label_counts: Examples by shown client and class; int64[k, classes]. `None`
      if an example has no single class.
    kind: What an example can be shown as.
  """

  sizes: np.ndarray
  shown: np.ndarray
  examples: list[client_data.Examples]
  label_counts: np.ndarray | None
  kind: Kind

  @property
  def majority(self) -> np.ndarray:
    """Share of its most frequent label, for shown clients with examples."""
    totals = self.label_counts.sum(axis=1)
    return (self.label_counts.max(axis=1) / np.maximum(totals, 1))[totals > 0]


def of(
  train: client_data.Clients, *, num_classes: int, has_tokens: bool
) -> Portrait:
  """Returns the portrait of the clients; reads MAX_CLIENTS of them.

  Args:
    train: The clients.
    num_classes: Number of classes, where labels are classes.
    has_tokens: Whether x holds ids of characters or words.
  """
  number = train.num_clients
  shown = np.unique(
    np.linspace(0, number - 1, min(number, MAX_CLIENTS)).round().astype(int)
  )
  examples = [client_data.Examples(**train.client(int(i))) for i in shown]
  y = train.prototype.y
  counts = None
  if y.ndim == 1 and y.dtype.kind in 'iu' and num_classes <= _MAX_CLASSES:
    counts = np.array(
      [np.bincount(one.y, minlength=num_classes) for one in examples]
    )
  return Portrait(
    sizes=train.client_sizes,
    shown=shown,
    examples=examples,
    label_counts=counts,
    kind=_kind(train.prototype.x, has_tokens=has_tokens),
  )


def _kind(x: np.ndarray, *, has_tokens: bool) -> Kind:
  if has_tokens:
    return Kind.TOKENS
  if x.dtype == np.uint8 and x.ndim in (3, 4):
    return Kind.IMAGES
  return Kind.SEQUENCES if x.ndim == 3 else Kind.FEATURES


def image_shape(x: np.ndarray) -> tuple[int, int] | None:
  """Returns the sides of a square image that rows may be; `None` if none.

  Only rows of numbers in [0, 1], as many as the pixels of a square, are.
  """
  side = int(np.sqrt(x.shape[1])) if x.ndim == 2 else 0
  square = side >= _MIN_SIDE and side * side == x.shape[1]
  inside = bool(len(x)) and x.min() >= 0.0 and x.max() <= 1.0
  return (side, side) if square and inside else None


def describe(portrait: Portrait, class_names: tuple[str, ...]) -> str:
  """Returns the portrait for people.

  Args:
    portrait: The portrait.
    class_names: What the classes are called; empty if they have no names.
  """
  sizes = portrait.sizes
  tenth, middle, ninth = np.quantile(sizes, [0.1, 0.5, 0.9])
  lines = [
    f'{len(sizes):,} clients, {sizes.sum():,} training examples.',
    f'Examples of a client: {sizes.min():,} to {sizes.max():,}, median '
    f'{middle:g}, mean {sizes.mean():.1f}; a tenth have at most {tenth:g}, a '
    f'tenth at least {ninth:g}.',
  ]
  if not sizes.min():
    lines.append(f'{(sizes == 0).sum():,} clients have no examples.')
  if len(portrait.shown) < len(sizes):
    lines.append(f'What follows is of {len(portrait.shown)} of the clients.')
  if portrait.label_counts is not None:
    lines += _labels(portrait, class_names)
  return '\n'.join(lines)


def _labels(portrait: Portrait, class_names: tuple[str, ...]) -> list[str]:
  totals = portrait.label_counts.sum(axis=0)
  names = class_names or tuple(map(str, range(len(totals))))
  order = np.argsort(-totals, kind='stable')[:10]
  shares = ', '.join(
    f'{names[c]} {totals[c] / totals.sum():.1%}' for c in order if totals[c]
  )
  more = f' and {len(totals) - 10} others' if len(totals) > 10 else ''
  present = (portrait.label_counts > 0).sum(axis=1)
  overall = totals.max() / totals.sum()
  return [
    f'Labels: {shares}{more}.',
    f'A client has {present.min()} to {present.max()} of {len(totals)} labels, '
    f'median {np.median(present):g}. Its most frequent label is '
    f'{np.median(portrait.majority):.0%} of its examples (median); the most '
    f'frequent one of all is {overall:.0%} of all.',
  ]


def texts(
  portrait: Portrait, vocabulary: str | None, *, clients: int = 5
) -> list[str]:
  """Returns an example of text of some clients; ids without a vocabulary.

  Args:
    portrait: A portrait of tokens.
    vocabulary: Characters, of which the first has id 1.
    clients: How many clients to show.
  """
  found = []
  for one in [e for e in portrait.examples if len(e)][:clients]:
    ids = [int(i) for i in np.ravel(one.x[0]) if i]
    if vocabulary is None:
      found.append(' '.join(map(str, ids)))
    else:
      known = [vocabulary[i - 1] for i in ids if i <= len(vocabulary)]
      found.append(' '.join(''.join(known).split()))
  return found

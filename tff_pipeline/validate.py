"""One message shape for bad values: which flag, what fits, what was found.

Every user-caused error of the pipeline is a `UsageError`; the binaries in
`experiments/` print it as one line and exit with status 2.
"""

from collections.abc import Collection
import difflib
import math


class UsageError(ValueError):
  """A mistake that the user can mend; the message says how, in one line."""


def error(
  flag: str, *, expected: str, found: object, remedy: str = ''
) -> UsageError:
  """Builds the error for one flag.

  Args:
    flag: Dotted leaf name without dashes, such as `privacy.delta`.
    expected: What a good value looks like, for example 'a number above 0'.
    found: The offending value; shown as it is if it is a printable string,
      with `repr` otherwise, so that the message stays one line.
    remedy: Which flag to turn and how; a full clause without a final stop.

  Returns:
    The exception, for the caller to raise.

  >>> print(error('rounds', expected='a whole number >= 1', found=0))
  --rounds: expected a whole number >= 1, found 0.
  """
  plain = isinstance(found, str) and found.isprintable() and found
  shown = found if plain else repr(found)
  ending = f' {remedy}' if remedy else ''
  if remedy and remedy[-1] not in '.?':
    ending += '.'
  return UsageError(f'--{flag}: expected {expected}, found {shown}.{ending}')


def check_choice(flag: str, value: object, choices: Collection[str]) -> None:
  """Raises `UsageError` unless `value` is one of `choices`.

  >>> check_choice('server.optimizer', 'smg', ('sgd', 'adam'))
  Traceback (most recent call last):
  ...
  tff_pipeline.validate.UsageError: --server.optimizer: expected one of \
adam, sgd, found smg. Did you mean sgd?
  """
  if value in choices:
    return
  close = difflib.get_close_matches(str(value), list(choices), n=1)
  raise error(
    flag,
    expected='one of ' + ', '.join(sorted(choices)),
    found=value,
    remedy=f'Did you mean {close[0]}?' if close else '',
  )


def check_number(
  flag: str,
  value: float,
  *,
  above: float | None = None,
  at_least: float | None = None,
  below: float | None = None,
  at_most: float | None = None,
) -> None:
  """Raises `UsageError` unless `value` is finite and within the bounds.

  >>> check_number('privacy.delta', float('nan'), above=0.0, below=1.0)
  Traceback (most recent call last):
  ...
  tff_pipeline.validate.UsageError: --privacy.delta: expected a finite \
number above 0.0 and below 1.0, found nan.
  """
  bounds = {
    'above': above,
    'at least': at_least,
    'below': below,
    'at most': at_most,
  }
  finite = isinstance(value, int) or math.isfinite(value)
  fits = finite and all(
    (
      above is None or value > above,
      at_least is None or value >= at_least,
      below is None or value < below,
      at_most is None or value <= at_most,
    )
  )
  if fits:
    return
  words = [
    f'{name} {bound}' for name, bound in bounds.items() if bound is not None
  ]
  expected = 'a finite number'
  if words:
    expected += ' ' + ' and '.join(words)
  raise error(flag, expected=expected, found=value)

"""The commands that a page of docs/ shows, and whether they print what it says.

A command is a line `$ python -m ...` of a ```console block; the lines below it
are some of those that it prints, whole and in their order.
"""

from collections.abc import Sequence
import pathlib

DOCS = pathlib.Path(__file__).parents[1] / 'docs'
_PROMPT = '$ python -m '


def read(page: str) -> list[tuple[str, list[str]]]:
  """Returns (command line after `python -m`, shown lines) of docs/`page`."""
  found = []
  inside = False
  for line in (DOCS / page).read_text(encoding='utf-8').splitlines():
    if line.startswith('```'):
      inside = line == '```console'
    elif inside and line.startswith(_PROMPT):
      found.append((line.removeprefix(_PROMPT), []))
    elif inside:
      found[-1][1].append(line)
  return found


def assert_printed(shown: Sequence[str], printed: Sequence[str]) -> None:
  """Asserts that every line shown was printed, in this order."""
  assert shown
  lines = iter(printed)
  for line in shown:
    assert line in lines, '\n'.join(printed)  # `in` uses the iterator up.

"""Shows runs: one self-contained HTML page, figures and tables.

  python -m experiments.report runs/quickstart
  python -m experiments.report runs/noise
  python -m experiments.report runs/a runs/b --output_dir=runs/a_and_b

Arguments are run directories, or directories that hold some, such as a sweep.
The page of one path goes into it, as report.html, with its figures (PNG, SVG)
and tables (CSV, Markdown, LaTeX) in report/. Several paths need --output_dir.

  python -m experiments.report --update_readme=README.md runs/noise

writes the table of results between the lines `<!-- results:begin NAME -->` and
`<!-- results:end NAME -->` of a Markdown file, and nothing else.
"""

import pathlib
import shlex

from absl import flags

from experiments import cli
from tff_pipeline import validate

_OUTPUT_DIR = flags.DEFINE_string(
  'output_dir', None, 'Where page, figures and tables go.'
)
_TARGET = flags.DEFINE_float(
  'target',
  None,
  'Held-out accuracy (or whatever metric comes first) to find the rounds and '
  'epsilon of.',
)
_UPDATE_README = flags.DEFINE_string(
  'update_readme', None, 'Markdown file to write the table of results into.'
)
_SECTION = flags.DEFINE_string(
  'section', 'results', 'NAME of the markers in that file.'
)


def main(paths: list[str]) -> None:
  """Writes the page, or the table into a README."""
  if not paths:
    raise validate.UsageError(
      'expected a run directory, or one that holds some: python -m '
      'experiments.report runs/quickstart'
    )
  from tff_pipeline.report import writing  # Late: `--help` is for everybody.

  if _UPDATE_README.value is not None:
    _update_readme(paths)
    return
  output_dir = _OUTPUT_DIR.value
  if output_dir is None and len(paths) > 1:
    raise validate.error(
      'output_dir', expected='a directory for several paths', found='nothing'
    )
  for path in writing.write(
    paths, output_dir or paths[0], target=_TARGET.value
  ):
    print(path)


def _update_readme(paths: list[str]) -> None:
  from tff_pipeline.report import writing

  file = pathlib.Path(_UPDATE_README.value)
  section = _SECTION.value
  command = shlex.join(
    [
      'python',
      '-m',
      'experiments.report',
      f'--update_readme={file.name}',
      *([f'--section={section}'] if section != 'results' else []),
      *paths,
    ]
  )
  changed = writing.update_markdown(
    file,
    section=section,
    text=writing.results_markdown(paths),
    command=command,
  )
  print(f'{file}: {"written" if changed else "up to date"}')


if __name__ == '__main__':
  cli.run_on_paths(main)

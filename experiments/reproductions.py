"""Writes the table of reproductions: published figures beside ours.

  python -m experiments.reproductions runs/papers

An argument is a directory with the sweeps of papers, each in a folder that is
named like its experiment file: `python -m experiments.sweep --experiment=NAME
--output_dir=runs/papers/NAME`. Several directories are read one after another.
A paper without runs keeps its section of the page that is replaced, or stands
there as not run. Curves are drawn into the folder figures beside the page.
"""

import pathlib
import shlex

from absl import flags

from experiments import cli
from tff_pipeline import validate

_OUTPUT = flags.DEFINE_string(
  'output', 'experiments/papers/RESULTS.md', 'Markdown file that is written.'
)
PACKAGE = 'experiments.papers.'
_FIGURES = 'figures'


def main(paths: list[str]) -> None:
  """Writes the page."""
  from tff_pipeline.outputs import run_directory
  from tff_pipeline.report import drawing
  from tff_pipeline.report import reproduction_curves
  from tff_pipeline.report import reproduction_sections
  from tff_pipeline.report import reproductions

  folders = [pathlib.Path(path) for path in paths]
  for folder in folders:
    if not folder.is_dir():
      raise validate.UsageError(f'{folder}: expected a directory of sweeps')
  papers = [_paper(name, folders) for name in names()]
  output = pathlib.Path(_OUTPUT.value)
  pictures = {}
  for figure in filter(None, map(reproduction_curves.figure, papers)):
    pictures[figure.name] = f'{_FIGURES}/{figure.name}.png'
    (output.parent / _FIGURES).mkdir(parents=True, exist_ok=True)
    drawing.save(figure, output.parent / _FIGURES, kinds=['png'])
  page = reproductions.page(
    papers,
    pictures=pictures,
    earlier=reproduction_sections.split(
      output.read_text(encoding='utf-8') if output.exists() else ''
    ),
    command=shlex.join(
      ['python', '-m', 'experiments.reproductions', 'runs/papers']
    ),
  )
  run_directory.write_text(output, page)
  run = sum(bool(paper.runs) for paper in papers)
  print(f'{_OUTPUT.value}: {run} of {len(papers)} papers have runs')


def names() -> list[str]:
  """Returns the experiment files that reproduce a paper."""
  return [
    name
    for name, module in cli.experiment_names().items()
    if module.startswith(PACKAGE)
  ]


def _paper(name: str, folders: list[pathlib.Path]) -> object:
  """Returns an experiment file with its runs."""
  from tff_pipeline.report import reading
  from tff_pipeline.report import reproductions

  module = cli.experiment_file(name)
  claim = getattr(module, 'CLAIM', None)
  if claim is None or not claim.rows:
    raise validate.error(
      'experiment', expected='a paper, with CLAIM and rows', found=name
    )
  held = [folder / name for folder in folders if (folder / name).is_dir()]
  runs = reading.collect(held).runs if held else ()
  return reproductions.Paper(
    name=name, documentation=module.__doc__ or '', claim=claim, runs=runs
  )


if __name__ == '__main__':
  cli.run_on_paths(main)

"""The code of every notebook runs, from runs to its figure."""

import json
import pathlib

import matplotlib
import pytest

from tests import synthetic_runs

NOTEBOOKS = sorted((pathlib.Path(__file__).parents[1] / 'notebooks').glob('*'))


def _execute(path, folder, monkeypatch):
  """Runs the code cells in one namespace, as if opened in `folder`."""
  monkeypatch.chdir(folder)
  matplotlib.use('agg')
  names = {}
  for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
    if cell['cell_type'] == 'code':
      code = ''.join(cell['source'])
      exec(compile(code, f'{path.name}:{cell["id"]}', 'exec'), names)
  return names


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_runs(path, tmp_path, monkeypatch):
  for noise in (0.5, 1.0):
    for seed in (0, 1):
      wanted = synthetic_runs.build(
        seed=seed, privacy=synthetic_runs.privacy(noise)
      )
      synthetic_runs.write(tmp_path / f'runs/noise/{noise}/seed={seed}', wanted)
  (tmp_path / 'notebooks').mkdir()
  names = _execute(path, tmp_path / 'notebooks', monkeypatch)
  (axes,) = names['figure'].axes
  assert len(axes.get_lines()) == 2
  assert 'add_or_remove_one' in axes.get_xlabel()


def test_notebook_refuses_to_mix_relations(tmp_path, monkeypatch):
  for relation in ('zero_out', 'add_or_remove_one'):
    wanted = synthetic_runs.build(
      privacy=synthetic_runs.privacy(relation=relation)
    )
    synthetic_runs.write(tmp_path / f'runs/noise/{relation}', wanted)
  (tmp_path / 'notebooks').mkdir()
  (path,) = [p for p in NOTEBOOKS if p.name == 'custom_figure.ipynb']
  with pytest.raises(ValueError, match='draw them apart'):
    _execute(path, tmp_path / 'notebooks', monkeypatch)


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_is_kept_without_output(path):
  for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
    assert not cell.get('outputs')
    assert cell.get('execution_count') is None

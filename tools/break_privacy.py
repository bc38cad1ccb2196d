"""Breaks one line of a mechanism at a time, and names the tests that notice.

  python tools/break_privacy.py [--only=SUBSTRING] [--output=TABLE.md]

Works on a copy of the repository. Prints a Markdown table, a row for each
break, and fails if any of them passes all tests. Takes about ten minutes.
"""

import argparse
import dataclasses
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

_ROOT = pathlib.Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Break:
  """One change of the code that makes a promise false.

  Attributes:
    what: What goes wrong.
    file: Below tff_pipeline/.
    old: Text that stands in the file once.
    new: What replaces it.
    tests: Below tests/; where it has to be noticed.
  """

  what: str
  file: str
  old: str
  new: str
  tests: str


BREAKS = (
  Break(
    'updates are not clipped',
    'keyed_noise.py',
    'scale = clip_factor(norm, clip_norm)',
    'scale = tf.ones_like(norm)',
    'keyed_noise_test.py',
  ),
  Break(
    'each layer may be as long as the whole update',
    'keyed_noise.py',
    'shares = math.sqrt(len(tensors))',
    'shares = 1.0',
    'keyed_noise_test.py privacy/mechanisms_test.py',
  ),
  Break(
    'an infinite update is kept',
    'keyed_noise.py',
    'finite = tf.math.is_finite(norm) & condition',
    'finite = tf.constant(True) & condition',
    'keyed_noise_test.py',
  ),
  Break(
    'all tensors of a release share noise',
    'keyed_noise.py',
    'seed=derive_seed(seed, index)',
    'seed=seed',
    'keyed_noise_test.py',
  ),
  Break(
    'all rounds share noise',
    'privacy/queries.py',
    'global_state.key, global_state.num_releases, _SUM',
    'global_state.key, 0, _SUM',
    'privacy/queries_test.py',
  ),
  Break(
    'no noise on the sum',
    'privacy/queries.py',
    'stddev=global_state.stddev,\n      seed',
    'stddev=0.0,\n      seed',
    'privacy/queries_test.py privacy/mechanisms_test.py',
  ),
  Break(
    'no noise on the count of adaptive clipping',
    'privacy/queries.py',
    'stddev=self._count_stddev,',
    'stddev=0.0,',
    'privacy/queries_test.py',
  ),
  Break(
    "adaptive clipping's noise does not follow the clip norm",
    'privacy/queries.py',
    'stddev=self._sum_noise_multiplier * global_state.l2_norm_clip,',
    'stddev=self._sum_noise_multiplier * self._initial_l2_norm_clip,',
    'privacy/queries_test.py privacy/mechanisms_test.py',
  ),
  Break(
    'the adaptive clip norm moves the wrong way',
    'privacy/queries.py',
    'tf.exp(-self._learning_rate * error)',
    'tf.exp(self._learning_rate * error)',
    'privacy/queries_test.py',
  ),
  Break(
    'the count of adaptive clipping is not priced',
    'privacy/guarantees.py',
    'return update(left), count',
    'return (update(noise),)',
    'privacy/guarantees_test.py',
  ),
  Break(
    'replacing one of a fixed-size cohort is priced at z, not z/2',
    'privacy/bounds.py',
    'population, size, _gaussian(noise / 2, keys=keys)',
    'population, size, _gaussian(noise, keys=keys)',
    'privacy/guarantees_test.py privacy/accounting_test.py',
  ),
  Break(
    'fixed-size cohorts are priced as Poisson',
    'privacy/bounds.py',
    'if sampling is config.Sampling.POISSON:\n    amplified',
    'if True:\n    amplified',
    'privacy/guarantees_test.py privacy/accounting_test.py',
  ),
  Break(
    'a round that was replayed under a new key is not priced twice',
    'privacy/bounds.py',
    'float(noise) / math.sqrt(keys)',
    'float(noise)',
    'privacy/accounting_test.py',
  ),
  Break(
    "releases of one cohort count as the largest noise's alone",
    'privacy/bounds.py',
    'return sum(r.noise_multiplier**-2 for r in releases) ** -0.5',
    'return max(r.noise_multiplier for r in releases)',
    'privacy/accounting_test.py privacy/guarantees_test.py',
  ),
  Break(
    'local epochs are not priced',
    'privacy/client_guarantees.py',
    'repeat=client.sampled_steps if sampled else client.epochs,',
    'repeat=1,',
    'privacy/guarantees_test.py',
  ),
  Break(
    'the client that took part most often is under-counted',
    'privacy/participations.py',
    'self._most.append(int(largest))',
    'self._most.append(int(largest) // 2)',
    'privacy/participations_test.py',
  ),
  Break(
    'the PLD price is a little too small',
    'privacy/accountants.py',
    '_CELLS_PER_DEVIATION = 40',
    '_CELLS_PER_DEVIATION = 2',
    'privacy/accountants_test.py',
  ),
  Break(
    'a Poisson cohort has a fixed size',
    'sampling.py',
    'generator.binomial(population, size / population)',
    'size',
    'sampling_test.py',
  ),
  Break(
    'all rounds have the same cohort',
    'sampling.py',
    '_sequence(seed, _COHORT_STREAM, round_num)',
    '_sequence(seed, _COHORT_STREAM, 1)',
    'sampling_test.py',
  ),
  Break(
    'examples are not clipped in DP-SGD',
    'client_work/dp_sgd.py',
    'weighted(chosen, keyed_noise.clip_factor(norms, clip_norm))',
    'weighted(chosen, tf.ones_like(norms))',
    'client_work/dp_sgd_test.py',
  ),
  Break(
    'the norms of example gradients leave out the biases',
    'client_work/example_norms.py',
    'squares += tf.reduce_sum(tf.square(tf.reduce_sum(d, 1)), 1)',
    'pass',
    'client_work/example_norms_test.py',
  ),
  Break(
    'an unknown layer, which may mix examples, is trusted',
    'client_work/example_norms.py',
    'self._unknown = True',
    'pass',
    'client_work/example_norms_test.py',
  ),
  Break(
    'examples of a recurrent model are not clipped in DP-SGD',
    'client_work/dp_sgd.py',
    'clipped, _ = keyed_noise.clip(gradients, clip_norm)',
    'clipped = gradients',
    'client_work/dp_sgd_test.py',
  ),
  Break(
    "all of a client's steps share noise",
    'client_work/dp_sgd.py',
    '_STREAM, step.number',
    '_STREAM, 0',
    'client_work/dp_sgd_test.py',
  ),
  Break(
    'DP-SGD divides by the realised batch',
    'client_work/dp_sgd.py',
    'lambda t: t / tf.cast(step.batch_size, t.dtype), noised',
    'lambda t: t / tf.cast(tf.shape(y)[0], t.dtype), noised',
    'client_work/dp_sgd_test.py',
  ),
  Break(
    "all of a client's Poisson batches are the same",
    'client_work/training_loop.py',
    '_BATCH_STREAM, number',
    '_BATCH_STREAM, 0',
    'client_work/training_loop_test.py',
  ),
  Break(
    'Poisson batches are larger than they are priced',
    'client_work/training_loop.py',
    'coins < rate',
    'coins < 1.1 * rate',
    'client_work/training_loop_test.py',
  ),
  Break(
    'a client takes a step more than is priced',
    'client_work/training_loop.py',
    'tf.minimum(steps, max_steps)',
    'steps + 1',
    'client_work/training_loop_test.py',
  ),
  Break(
    'local privacy noises before it clips',
    'client_work/local_dp.py',
    'clipped, stddev=noise_multiplier * clip_norm, seed=seed',
    'update, stddev=noise_multiplier * clip_norm, seed=seed',
    'client_work/local_dp_test.py',
  ),
  Break(
    'a client has the same noise in all rounds',
    'privacy/noise_key.py',
    "hashlib.sha256(f'{to_text(key)}/round {round_num}/client '.encode())",
    "hashlib.sha256(f'{to_text(key)}/client '.encode())",
    'privacy/noise_key_test.py',
  ),
  Break(
    'all clients share noise',
    'privacy/noise_key.py',
    'digest.update(str(int(client)).encode())',
    "digest.update(b'0')",
    'privacy/noise_key_test.py',
  ),
  Break(
    'the sum is divided by something else than the expected cohort',
    'privacy/aggregators.py',
    'tfp.NormalizedQuery(query, denominator=denominator)',
    'tfp.NormalizedQuery(query, denominator=denominator + 1)',
    'privacy/aggregators_test.py privacy/mechanisms_test.py',
  ),
)


def main() -> int:
  """Runs all breaks; returns how many passed all tests."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--only', default='', help='a part of what goes wrong')
  parser.add_argument('--output', help='where the table goes as well')
  args = parser.parse_args()
  lines = ['| what is broken | where | tests that fail |', '|---|---|---|']
  unnoticed = 0
  print('\n'.join(lines), flush=True)
  with tempfile.TemporaryDirectory() as folder:
    copy = pathlib.Path(folder) / 'copy'
    for folder_name in ('tff_pipeline', 'tests', 'experiments', 'docs'):
      shutil.copytree(_ROOT / folder_name, copy / folder_name)
    for name in ('pyproject.toml', 'README.md'):
      shutil.copy(_ROOT / name, copy / name)
    for broken in BREAKS:
      if args.only not in broken.what:
        continue
      failed = _failures(broken, copy)
      unnoticed += not failed
      shown = '<br>'.join(f'`{name}`' for name in failed[:2]) or '**none**'
      if len(failed) > 2:
        shown += f' and {len(failed) - 2} more'
      lines.append(f'| {broken.what} | `{broken.file}` | {shown} |')
      print(lines[-1], flush=True)
  if args.output:
    pathlib.Path(args.output).write_text('\n'.join(lines) + '\n')
  return unnoticed


def _failures(broken: Break, copy: pathlib.Path) -> list[str]:
  """Returns the names of the tests that fail, without their parameters."""
  path = copy / 'tff_pipeline' / broken.file
  whole = path.read_text(encoding='utf-8')
  if whole.count(broken.old) != 1:
    raise ValueError(f'{broken.file} holds {broken.old!r} not exactly once')
  path.write_text(whole.replace(broken.old, broken.new), encoding='utf-8')
  try:
    done = subprocess.run(
      [sys.executable, '-m', 'pytest', '-q', '-m', 'not slow', '-p']
      + ['no:cacheprovider', '--tb=no', '-rfE', '--color=no']
      + [f'tests/{name}' for name in broken.tests.split()],
      cwd=copy,
      capture_output=True,
      text=True,
    )
  finally:
    path.write_text(whole, encoding='utf-8')
  if done.returncode not in (0, 1):
    raise RuntimeError(done.stdout + done.stderr)
  found = re.findall(r'^FAILED tests/\S+::(\w+)', done.stdout, re.MULTILINE)
  return list(dict.fromkeys(found))


if __name__ == '__main__':
  sys.exit(main())

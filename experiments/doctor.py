"""Checks that this machine and this installation can train.

  python -m experiments.doctor

Each check prints one line, and for a failure the command that mends it. Exit
status 0 means that all is well. What needs no third-party package is checked
first and imports none, so a broken installation gets an answer too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
from importlib import metadata
import os
import pathlib
import platform
import re
import shutil
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOCK = ROOT / 'requirements.lock'

_MAKE = 'make doctor'
_CONTAINER = (
  'docker run --rm -it --platform linux/amd64 -v "$PWD":/repo -w /repo '
  'python:3.11-bookworm make doctor'
)
_LEAST_FREE_BYTES = 10**9
_ROUND_LIMIT_SECONDS = 180.0


@dataclasses.dataclass(frozen=True)
class Finding:
  """What one check found.

  Attributes:
    name: What was looked at, in one word.
    text: What was found, in one line.
    remedy: The command that mends it; empty if there is nothing to mend.
  """

  name: str
  text: str
  remedy: str = ''


def check_python(version: Sequence[int], *, implementation: str) -> Finding:
  """Checks that the interpreter is CPython 3.11.

  >>> check_python((3, 12, 1), implementation='cpython').text
  'cpython 3.12.1; TensorFlow Federated 0.87 needs cpython 3.11'
  """
  text = implementation + ' ' + '.'.join(str(part) for part in version[:3])
  if (implementation, *version[:2]) == ('cpython', 3, 11):
    return Finding('python', text)
  wanted = 'TensorFlow Federated 0.87 needs cpython 3.11'
  return Finding('python', f'{text}; {wanted}', _MAKE)


def check_platform(
  system: str, machine: str, *, libc: tuple[str, str]
) -> Finding:
  """Checks for what TFF's wheels are built for: Linux x86_64, glibc >= 2.31.

  >>> check_platform('Darwin', 'arm64', libc=('', '')).text
  'Darwin arm64; TensorFlow Federated has wheels for Linux x86_64 only'
  """
  text = f'{system} {machine}'
  if (system, machine) != ('Linux', 'x86_64'):
    wanted = 'TensorFlow Federated has wheels for Linux x86_64 only'
    return Finding('platform', f'{text}; {wanted}', _CONTAINER)
  text = ' '.join([text, *libc]).strip()
  release = tuple(int(part) for part in re.findall(r'\d+', libc[1])[:2])
  if libc[0] != 'glibc' or release < (2, 31):
    wanted = 'TensorFlow Federated needs glibc 2.31 or newer'
    return Finding('platform', f'{text}; {wanted}', _CONTAINER)
  return Finding('platform', text)


def check_processor(cpuinfo: str) -> Finding:
  """Checks that the processor has AVX, without which TensorFlow dies.

  Args:
    cpuinfo: The text of /proc/cpuinfo.

  Returns:
    The finding; its text counts the cores.
  """
  cores = len(re.findall(r'^processor\s*:', cpuinfo, re.MULTILINE))
  text = f'{cores} cores'
  if re.search(r'^flags\s*:.*\bavx\b', cpuinfo, re.MULTILINE):
    return Finding('processor', f'{text} with AVX')
  return Finding(
    'processor',
    f'{text} without AVX, which the wheel of TensorFlow is compiled for',
    'lscpu | grep -i avx  # on a virtual machine, pass the host CPU through',
  )


def check_disk(free_bytes: int) -> Finding:
  """Checks for room for run directories.

  >>> check_disk(30_400_000_000).text
  '30.4 GB free'
  """
  text = f'{free_bytes / 1e9:.1f} GB free'
  if free_bytes >= _LEAST_FREE_BYTES:
    return Finding('disk', text)
  return Finding(
    'disk',
    f'{text}; a run needs up to {_LEAST_FREE_BYTES / 1e9:.0f} GB',
    'du -sh runs/*  # then delete the runs that you no longer need',
  )


def parse_lock(text: str) -> dict[str, str]:
  r"""Returns the pinned version of each package in a requirements file.

  >>> parse_lock('# made by uv\nabsl-py==1.4.0 \\\n    --hash=sha256:0d\n')
  {'absl-py': '1.4.0'}
  """
  return dict(
    re.findall(r'^([A-Za-z0-9._-]+)==([^\s;\\]+)', text, re.MULTILINE)
  )


def installed_version(package: str) -> str | None:
  """Returns the version of an installed package, None if it is missing."""
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:
    return None


def check_packages(
  pins: Mapping[str, str],
  *,
  version_of: Callable[[str], str | None],
  remedy: str,
) -> Finding:
  """Checks that every package of the lock is installed in its version.

  >>> check_packages(
  ...   {'numpy': '1.25.2'}, version_of=lambda _: '1.26.4', remedy='make'
  ... ).text
  '1 of 1 differ from requirements.lock: numpy 1.26.4 (lock: 1.25.2)'
  """
  if not pins:
    text = 'requirements.lock names no package'
    return Finding('packages', text, 'git checkout requirements.lock')
  found = {package: version_of(package) for package in pins}
  wrong = [
    f'{package} {found[package] or "missing"} (lock: {pin})'
    for package, pin in pins.items()
    if found[package] != pin
  ]
  if not wrong:
    return Finding('packages', f'all {len(pins)} as in requirements.lock')
  listed = ', '.join(wrong[:5]) + (', …' if len(wrong) > 5 else '')
  text = f'{len(wrong)} of {len(pins)} differ from requirements.lock: {listed}'
  return Finding('packages', text, remedy)


def reinstall_command(prefix: pathlib.Path, *, root: pathlib.Path) -> str:
  """Returns the command that rebuilds the environment in use.

  An environment that `make` did not make is not for us to delete; then the
  command makes one and checks that.

  Args:
    prefix: Where the running interpreter is installed, `sys.prefix`.
    root: The root of the checkout.

  Returns:
    A shell command, to be run in `root`.
  """
  if not (prefix / '.made_by_setup_venv').exists():
    return _MAKE
  if prefix == root / '.venv':
    return 'rm -rf .venv && make doctor'
  return f"rm -rf '{prefix}' && make doctor VENV='{prefix}'"


def check_tensorflow(remedy: str) -> Iterator[Finding]:
  """Imports TensorFlow, TFF and TensorFlow Privacy; reports the GPUs."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  started = time.monotonic()
  try:
    import tensorflow as tf
    import tensorflow_federated as tff
    import tensorflow_privacy as tfp

    gpus = [gpu.name for gpu in tf.config.list_physical_devices('GPU')]
  except Exception as broken:  # A broken install raises anything.
    yield Finding('tensorflow', _in_one_line(broken), remedy)
    return
  seconds = time.monotonic() - started
  yield Finding(
    'tensorflow',
    f'TensorFlow {tf.__version__}, TensorFlow Federated {tff.__version__}, '
    f'TensorFlow Privacy {tfp.__version__}; imported in {seconds:.0f} s',
  )
  yield describe_gpus(gpus)


def describe_gpus(gpus: Sequence[str]) -> Finding:
  """Says what GPUs mean for training; having none is not a failure.

  >>> describe_gpus([]).text.startswith('TensorFlow sees none')
  True
  """
  if gpus:
    sees = f'TensorFlow sees {", ".join(gpus)}, which in_process uses'
  else:
    sees = 'TensorFlow sees none; in_process would use one'
  return Finding(
    'gpu', f"{sees}. TFF's own worker (tff_runtime) is built for CPUs only"
  )


def check_round(run_round: Callable[[], None], remedy: str) -> Finding:
  """Runs one real private round; a round that hangs ends the process."""
  started = time.monotonic()
  watchdog = threading.Timer(_ROUND_LIMIT_SECONDS, _give_up_on_round, [remedy])
  watchdog.daemon = True
  watchdog.start()
  try:
    run_round()
  except Exception as failure:  # Whatever it is, it is the finding.
    return Finding('round', _in_one_line(failure), remedy)
  finally:
    watchdog.cancel()
  seconds = time.monotonic() - started
  return Finding(
    'round', f'two clients, differentially private: done in {seconds:.1f} s'
  )


def _give_up_on_round(remedy: str) -> None:
  import psutil

  text = f'no answer within {_ROUND_LIMIT_SECONDS:.0f} s'
  report(Finding('round', text, remedy))
  for child in psutil.Process().children(recursive=True):
    child.kill()
  sys.stdout.flush()
  os._exit(1)  # The main thread waits in C++ and cannot be interrupted.


def _in_one_line(error: BaseException) -> str:
  words = ' '.join(str(error).split())
  return f'{type(error).__name__}: {words[:300]}'


def _smoke_round() -> None:
  from tff_pipeline import experiment

  experiment.smoke_round()


def _libc() -> tuple[str, str]:
  """Returns name and version of the C library; empty where unknown."""
  try:
    name, _, version = os.confstr('CS_GNU_LIBC_VERSION').partition(' ')
  except (AttributeError, OSError, ValueError):
    return ('', '')
  return (name, version)


def _read(path: pathlib.Path) -> str:
  """Returns a file's text; none where there is no such file."""
  try:
    return path.read_text(encoding='utf-8')
  except OSError:
    return ''


def examine() -> Iterator[Finding]:
  """Yields the findings about this machine, the cheap ones first."""
  remedy = reinstall_command(pathlib.Path(sys.prefix), root=ROOT)
  yield check_python(sys.version_info, implementation=sys.implementation.name)
  yield check_platform(platform.system(), platform.machine(), libc=_libc())
  processor = check_processor(_read(pathlib.Path('/proc/cpuinfo')))
  yield processor
  yield check_disk(shutil.disk_usage(ROOT).free)
  yield check_packages(
    parse_lock(_read(LOCK)), version_of=installed_version, remedy=remedy
  )
  if processor.remedy:
    return  # Importing TensorFlow would end this process.
  healthy = True
  for finding in check_tensorflow(remedy):
    healthy = healthy and not finding.remedy
    yield finding
  if healthy:
    yield check_round(_smoke_round, remedy)


def report(finding: Finding) -> None:
  """Prints one finding, and its remedy on a line of its own."""
  state = 'FAILED' if finding.remedy else 'ok'
  print(f'{state:<7} {finding.name:<11} {finding.text}', flush=True)
  if finding.remedy:
    print(f'{"":<7} {"mend it:":<11} {finding.remedy}', flush=True)


def main(argv: Sequence[str]) -> int:
  """Reports all findings; returns the exit status."""
  if set(argv[1:]) & {'--help', '-h'}:
    print(__doc__)
    return 0
  if len(argv) > 1:
    print(f'error: doctor takes no arguments, found {argv[1]}', file=sys.stderr)
    return 2
  failures = 0
  for finding in examine():
    report(finding)
    failures += bool(finding.remedy)
  print(f'{failures} failed.' if failures else 'All is well.')
  return 1 if failures else 0


if __name__ == '__main__':
  # Not by absl's app.run: a broken installation deserves an answer too.
  sys.exit(main(sys.argv))

import os
import pathlib
import subprocess
import sys

import pytest

from experiments import doctor

GLIBC = ('glibc', '2.36')


@pytest.mark.parametrize(
  'version, implementation, well',
  [
    ((3, 11, 0), 'cpython', True),
    ((3, 11, 9, 'final', 0), 'cpython', True),
    ((3, 10, 13), 'cpython', False),
    ((3, 12, 1), 'cpython', False),
    ((3, 11, 9), 'pypy', False),
  ],
)
def test_only_cpython_311_passes(version, implementation, well):
  finding = doctor.check_python(version, implementation=implementation)
  assert (finding.remedy == '') is well


@pytest.mark.parametrize(
  'system, machine, libc, well',
  [
    ('Linux', 'x86_64', GLIBC, True),
    ('Linux', 'x86_64', ('glibc', '2.31'), True),
    ('Linux', 'x86_64', ('glibc', '3.0'), True),
    ('Linux', 'x86_64', ('glibc', '2.28'), False),
    ('Linux', 'x86_64', ('', ''), False),
    ('Linux', 'aarch64', GLIBC, False),
    ('Darwin', 'x86_64', ('', ''), False),
    ('Windows', 'AMD64', ('', ''), False),
  ],
)
def test_only_the_platform_of_the_wheels_passes(system, machine, libc, well):
  finding = doctor.check_platform(system, machine, libc=libc)
  assert (finding.remedy == '') is well


@pytest.mark.parametrize(
  'cpuinfo, text, well',
  [
    ('processor : 0\nflags : fpu avx avx2\n' * 2, '2 cores with AVX', True),
    ('processor\t: 0\nflags\t\t: fpu sse avx2\n', '1 cores without', False),
    ('', '0 cores without', False),
  ],
)
def test_processor_needs_avx(cpuinfo, text, well):
  finding = doctor.check_processor(cpuinfo)
  assert finding.text.startswith(text)
  assert (finding.remedy == '') is well


@pytest.mark.parametrize('free, well', [(10**9, True), (10**9 - 1, False)])
def test_disk_needs_a_gigabyte(free, well):
  assert (doctor.check_disk(free).remedy == '') is well


def test_lock_parses_names_versions_and_markers():
  text = (
    '# made by uv\n'
    'jax==0.4.13 \\\n    --hash=sha256:aa==\n'
    'typing-extensions==4.5.0 ; python_version < "4" \\\n    --hash=sha256:bb\n'
    'pip==26.3\n'
  )
  pins = {'jax': '0.4.13', 'typing-extensions': '4.5.0', 'pip': '26.3'}
  assert doctor.parse_lock(text) == pins


def test_packages_name_what_is_missing_and_what_differs():
  pins = {'a': '1', 'b': '2', 'c': '3'}
  finding = doctor.check_packages(
    pins, version_of={'a': '1', 'b': '9'}.get, remedy='mend'
  )
  assert finding.remedy == 'mend'
  assert finding.text.startswith('2 of 3 differ')
  assert finding.text.endswith('b 9 (lock: 2), c missing (lock: 3)')


def test_packages_list_is_cut_short():
  pins = {f'p{number}': '1' for number in range(9)}
  finding = doctor.check_packages(
    pins, version_of=lambda _: None, remedy='mend'
  )
  assert 'p4' in finding.text
  assert 'p5' not in finding.text


def test_packages_as_in_the_lock_pass():
  pins = {'a': '1'}
  finding = doctor.check_packages(pins, version_of=pins.get, remedy='mend')
  assert finding == doctor.Finding('packages', 'all 1 as in requirements.lock')


def test_a_lost_lock_is_a_failure():
  finding = doctor.check_packages({}, version_of=lambda _: None, remedy='mend')
  assert finding.remedy == 'git checkout requirements.lock'


def test_only_what_make_made_is_deleted(tmp_path):
  own, other = tmp_path / '.venv', tmp_path / 'elsewhere'
  for prefix in (own, other):
    prefix.mkdir()
    assert doctor.reinstall_command(prefix, root=tmp_path) == 'make doctor'
    (prefix / '.made_by_setup_venv').touch()
  assert doctor.reinstall_command(own, root=tmp_path) == (
    'rm -rf .venv && make doctor'
  )
  assert doctor.reinstall_command(other, root=tmp_path) == (
    f"rm -rf '{other}' && make doctor VENV='{other}'"
  )


def test_gpus_never_fail():
  for gpus in ([], ['/physical_device:GPU:0']):
    finding = doctor.describe_gpus(gpus)
    assert finding.remedy == ''
    assert 'CPUs only' in finding.text
  assert 'GPU:0' in finding.text


def test_round_that_works_and_round_that_fails():
  assert doctor.check_round(lambda: None, 'mend').remedy == ''

  def broken():
    raise RuntimeError('two\nlines')

  finding = doctor.check_round(broken, 'mend')
  assert finding == doctor.Finding('round', 'RuntimeError: two lines', 'mend')


def test_a_round_that_hangs_ends_the_process_and_its_children():
  script = (
    'import subprocess, sys, time\n'
    'from experiments import doctor\n'
    'doctor._ROUND_LIMIT_SECONDS = 0.3\n'
    'child = subprocess.Popen(["sleep", "60"])\n'
    'print(child.pid, flush=True)\n'
    'doctor.check_round(lambda: time.sleep(60), "mend")\n'
  )
  # The child inherits stdout: `run` would wait for it if it lived on.
  done = subprocess.run(
    [sys.executable, '-c', script],
    cwd=doctor.ROOT,
    stdout=subprocess.PIPE,
    text=True,
    timeout=20,
  )
  assert done.returncode == 1
  assert 'FAILED  round       no answer within' in done.stdout


@pytest.mark.parametrize(
  'remedies, status, last_line',
  [
    ([''], 0, 'All is well.'),
    (['', 'mend'], 1, '1 failed.'),
    (['mend', 'mend', ''], 1, '2 failed.'),
  ],
)
def test_exit_status_says_all(monkeypatch, capsys, remedies, status, last_line):
  findings = [doctor.Finding('name', 'text', remedy) for remedy in remedies]
  monkeypatch.setattr(doctor, 'examine', lambda: iter(findings))
  assert doctor.main(['doctor']) == status
  assert capsys.readouterr().out.splitlines()[-1] == last_line


def test_arguments_are_refused(capsys):
  assert doctor.main(['doctor', 'now']) == 2
  assert 'now' in capsys.readouterr().err


def test_help_is_no_examination(monkeypatch, capsys):
  monkeypatch.setattr(doctor, 'examine', lambda: pytest.fail('examined'))
  assert doctor.main(['doctor', '--help']) == 0
  assert 'experiments.doctor' in capsys.readouterr().out


def test_a_processor_without_avx_keeps_tensorflow_out(monkeypatch):
  monkeypatch.setattr(doctor, '_read', lambda path: '')
  monkeypatch.setattr(
    doctor, 'check_tensorflow', lambda remedy: pytest.fail('imported')
  )
  assert [finding.name for finding in doctor.examine()][-1] == 'packages'


def test_a_broken_tensorflow_keeps_the_round_out(monkeypatch):
  monkeypatch.setattr(
    doctor,
    'check_tensorflow',
    lambda remedy: iter([doctor.Finding('tensorflow', 'broken', remedy)]),
  )
  monkeypatch.setattr(doctor, '_smoke_round', lambda: pytest.fail('ran'))
  assert [finding.name for finding in doctor.examine()][-1] == 'tensorflow'


def test_an_installation_without_packages_gets_an_answer():
  done = subprocess.run(
    [sys.executable, '-S', '-m', 'experiments.doctor'],
    cwd=doctor.ROOT,
    env=os.environ | {'PYTHONPATH': ''},
    capture_output=True,
    text=True,
    timeout=20,
  )
  lines = done.stdout.splitlines()
  assert done.returncode == 1
  assert done.stderr == ''
  assert lines[0].startswith('ok      python')
  failed = [line.split()[1] for line in lines if line.startswith('FAILED')]
  assert failed == ['packages', 'tensorflow']
  assert "No module named 'tensorflow'" in done.stdout
  assert lines[-1] == '2 failed.'


def test_reading_the_lock_of_this_checkout():
  pins = doctor.parse_lock(pathlib.Path(doctor.LOCK).read_text())
  assert pins['tensorflow-federated'] == '0.87.0'
  assert (pins['jax'], pins['jaxlib']) == ('0.4.13', '0.4.13')

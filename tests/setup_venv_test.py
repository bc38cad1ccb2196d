"""tools/setup_venv.sh with every outside program replaced by a stub."""

import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SYSTEM = 'awk basename cat chmod cksum cp dirname flock ls mkdir mv rm sh sleep'
STUBS = {
  'uname': 'case $1 in -s) echo Linux;; -m) echo x86_64;; esac',
  'getconf': 'echo glibc 2.36',
  'df': 'echo header; echo disk 9 9 9000000 1% /',
  # -c prints the interpreter; -m venv makes one; -m pip notes its last word.
  'python3.11': """
case "$1 $2" in
  -c*) echo "$0" ;;
  '-m venv') mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  '-m pip') for last; do :; done; sleep 0.1; echo "$last" >>pip.log
            [ ! -e pip.fails ] ;;
esac""",
}
UV = """
case "$1 $2 $3" in
  'venv --quiet '*) for last; do :; done
      mkdir -p "$last/bin" && cp "$(dirname "$0")/uname" "$last/bin/python" ;;
  'pip install '*) for last; do :; done; echo "$last" >>uv.log ;;
  *) exit 1 ;;
esac"""
BOTH = ['requirements-build.lock', 'requirements.lock']


class Checkout:
  """A checkout with the script, two tiny locks and a PATH of its own."""

  def __init__(self, root):
    self.root = root
    self.bin = root / 'stubs'
    self.bin.mkdir()
    (root / 'tools').mkdir()
    shutil.copy(ROOT / 'tools' / 'setup_venv.sh', root / 'tools')
    for lock in BOTH:
      (root / lock).write_text('one==1\n')
    for program in SYSTEM.split():
      (self.bin / program).symlink_to(shutil.which(program))
    for program, body in STUBS.items():
      self.stub(program, body)

  def stub(self, program, body):
    path = self.bin / program
    path.write_text(f'#!/bin/sh\n{body}\n')
    path.chmod(0o755)

  def start(self, *arguments, **environ):
    return subprocess.Popen(
      ['/bin/sh', 'tools/setup_venv.sh', *arguments],
      cwd=self.root,
      env={'PATH': str(self.bin)} | environ,
      stderr=subprocess.PIPE,
      text=True,
    )

  def run(self, *arguments, **environ):
    process = self.start(*arguments, **environ)
    _, errors = process.communicate(timeout=20)
    return process.returncode, errors

  def log(self, tool='pip'):
    path = self.root / f'{tool}.log'
    return path.read_text().split() if path.exists() else []


@pytest.fixture
def checkout(tmp_path):
  return Checkout(tmp_path)


@pytest.mark.parametrize(
  'program, body, words',
  [
    ('uname', 'echo Darwin', 'Linux x86_64 only; this is Darwin Darwin'),
    ('uname', 'case $1 in -s) echo Linux;; *) echo aarch64;; esac', 'aarch64'),
    ('getconf', 'exit 1', 'this system has no glibc'),
    ('getconf', 'echo glibc 2.28', 'this system has glibc 2.28'),
    ('df', 'echo header; echo disk 9 9 1200000 1% /', 'there are 1200 MB'),
    ('python3.11', 'exit 1', 'Python 3.11 with venv was not found'),
  ],
)
def test_what_is_missing_is_said_in_one_line(checkout, program, body, words):
  checkout.stub(program, body)
  status, errors = checkout.run()
  assert status == 1
  assert words in errors
  assert errors.startswith('setup: ')
  assert errors.count('\n') == 1
  assert not (checkout.root / '.venv').exists()


def test_a_named_python_is_not_replaced_by_another(checkout):
  status, errors = checkout.run(PYTHON='no such python')
  assert status == 1
  assert 'Python 3.11 with venv was not found' in errors


def test_any_name_of_a_python_311_will_do(checkout):
  (checkout.bin / 'python3.11').rename(checkout.bin / 'python')
  assert checkout.run()[0] == 0


def test_the_second_use_does_nothing(checkout):
  assert checkout.run()[0] == 0
  assert checkout.log() == BOTH
  assert checkout.run() == (0, '')
  assert checkout.log() == BOTH


@pytest.mark.parametrize('lock', BOTH)
def test_a_changed_lock_is_installed_from_nothing(checkout, lock):
  checkout.run()
  (checkout.root / '.venv' / 'leftover').touch()
  (checkout.root / lock).write_text('one==2\n')
  assert checkout.run()[0] == 0
  assert checkout.log() == 2 * BOTH
  assert not (checkout.root / '.venv' / 'leftover').exists()
  assert not (checkout.root / '.venv.discarded').exists()


def test_a_failed_installation_says_so_and_is_started_again(checkout):
  (checkout.root / 'pip.fails').touch()
  status, errors = checkout.run()
  assert status == 1
  assert 'the installation failed' in errors
  assert checkout.log() == BOTH[:1]
  (checkout.root / 'pip.fails').unlink()
  assert checkout.run()[0] == 0
  assert checkout.log() == BOTH[:1] + BOTH


def test_a_killed_installation_is_started_again(checkout):
  checkout.stub('python3.11', STUBS['python3.11'].replace('0.1', '0.5'))
  process = checkout.start()
  process.stderr.readline()  # Says that it begins.
  process.kill()
  process.communicate()
  assert checkout.run()[0] == 0
  assert checkout.log()[-2:] == BOTH


def test_an_environment_whose_python_is_gone_is_built_again(checkout):
  checkout.run()
  (checkout.root / '.venv' / 'bin' / 'python').unlink()
  assert checkout.run()[0] == 0
  assert checkout.log() == 2 * BOTH


def test_a_directory_of_the_users_is_left_alone(checkout):
  (checkout.root / 'mine').mkdir()
  (checkout.root / 'mine' / 'thesis').write_text('words')
  status, errors = checkout.run('mine')
  assert status == 1
  assert 'mine exists and was not made by this script' in errors
  assert (checkout.root / 'mine' / 'thesis').read_text() == 'words'


def test_a_place_that_does_not_exist_yet_is_made(checkout):
  assert checkout.run('large disk/new/venv')[0] == 0
  assert (checkout.root / 'large disk/new/venv/bin/python').exists()


def test_two_at_once_install_once(checkout):
  processes = [checkout.start() for _ in range(2)]
  for process in processes:
    process.communicate(timeout=20)
    assert process.returncode == 0
  assert checkout.log() == BOTH


def test_uv_is_used_where_there_is_one(checkout):
  checkout.stub('uv', UV)
  status, errors = checkout.run()
  assert (status, 'with uv' in errors) == (0, True)
  assert checkout.log('uv') == BOTH
  assert checkout.log() == []

"""Whatever happens to a program, it ends with one line and a status: real processes that run a module as a program."""

import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from packlm.base import program

ROOT = Path(__file__).resolve().parents[2]
SECRET = "postgresql://me:hunter2@db/mlflow"


def start(folder: Path, source: str) -> "subprocess.Popen[str]":
    """Runs a module with this source as a program; its temporary folder is `folder`."""
    (folder / "module.py").write_text(source)
    return subprocess.Popen(
        [sys.executable, "-c", "from packlm.base import program; program.run('module')"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "TMPDIR": str(folder), "PYTHONIOENCODING": "utf-8"},
        preexec_fn=_default_signals,
    )  # fmt: skip


def _default_signals() -> None:
    for number in program.SIGNALS:  # a shell's background jobs inherit that SIGINT is ignored
        signal.signal(number, signal.SIG_DFL)


def end(process: "subprocess.Popen[str]", seconds: float = 60) -> tuple[int, str]:
    """Exit status and standard error, without which there is no line."""
    errors = process.communicate(timeout=seconds)[1]
    assert errors.count("\n") == (errors != "") and "Traceback" not in errors, errors
    return process.returncode, errors


def traces(folder: Path) -> list[Path]:
    return sorted(folder.glob("packlm-*"))


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("raise ImportError('no numpy')", "ImportError: no numpy"),
        ("def main(): main()", "RecursionError: maximum recursion depth exceeded"),
        ("class Panic(BaseException): pass\ndef main(): raise Panic('index out of\\nbounds')", "Panic: index out of bounds"),
        ("def main(): import sys; sys.exit('I give up')", "SystemExit: I give up"),
        ("def main(): raise ExceptionGroup('many', [ValueError('one'), OSError(5, 'two')])", "ExceptionGroup: many"),
        ("class Silent(Exception):\n  def __str__(self): raise ValueError\ndef main(): raise Silent", "Silent: (it has no text)"),
        ("def main(): print('\\udc80')", "UnicodeEncodeError: 'utf-8' codec can't encode"),
        ("def main(): raise GeneratorExit", "GeneratorExit: "),
        (f"def main(): raise ValueError('cannot reach {SECRET}')", "ValueError: cannot reach"),
        (f"def main(): raise ValueError('{'x' * 9999}')", "ValueError: xxx"),
    ],
    ids=lambda value: value[-24:],
)  # fmt: skip
def test_any_exception_is_one_line_whose_trace_is_in_a_private_file(tmp_path, source, line):
    status, errors = end(start(tmp_path, source))
    assert status == 1 and errors.startswith(f"critical: unexpected: {line}") and len(errors) < 700, errors
    (trace,) = traces(tmp_path)
    assert re.search(r" \(\S+:\d+\); the full trace is in " + re.escape(str(trace)), errors), errors
    assert stat.S_IMODE(trace.stat().st_mode) == 0o600 and "Traceback (most recent call last)" in trace.read_text()
    assert "hunter2" not in errors + trace.read_text()


def test_a_trace_that_cannot_be_written_is_said_to_be_so(tmp_path):
    program_without_folder = "import tempfile; tempfile._candidate_tempdir_list = lambda: ['/proc']\ndef main(): raise ValueError('odd')"
    status, errors = end(start(tmp_path, program_without_folder))
    assert status == 1 and "unexpected: ValueError: odd (" in errors and "the trace could not be written (" in errors


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("def main(): open('/proc/nothing/here')", "critical: /proc/nothing/here: No such file or directory; make its folder first"),
        ("def main(): open('x' * 999)", "xx: File name too long; give a shorter name"),
        ("import os\ndef main(): os.rename('module.py', 'no/such')", "critical: module.py: No such file"),
    ],
)
def test_an_error_of_the_operating_system_names_the_path_and_the_remedy(tmp_path, source, line):
    status, errors = end(start(tmp_path, source))
    assert status == 1 and line in errors and not traces(tmp_path)


@pytest.mark.parametrize(
    "source",
    [
        "import threading\ndef main(): t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
        "import atexit\ndef main(): atexit.register(lambda: 1 / 0)",
        "class Odd:\n  def __del__(self): 1 / 0\ndef main(): Odd()",
    ],
)
def test_an_exception_beside_the_main_thread_is_one_line(tmp_path, source):
    status, errors = end(start(tmp_path, source))
    assert status == 0 and "unexpected: ZeroDivisionError: division by zero (" in errors and len(traces(tmp_path)) == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("redirection", "status", "line"),
    [
        (">&-", 1, "error: standard output cannot be written: it is closed\n"),
        ("> /dev/full", 1, "error: standard output cannot be written: No space left on device\n"),
        ("| true", 0, ""),
        ("> out", 0, ""),
        ("> out 2>&- <&-", 0, ""),
    ],
)
@pytest.mark.parametrize("size", [10, 10_000_000])
def test_standard_output_that_is_closed_or_full_is_a_failure(tmp_path, redirection, status, line, size, unbuffered):
    (tmp_path / "module.py").write_text(f"def main(): print('x' * {size}); open('data', 'w').write('data')")
    command = f"{sys.executable} -c \"from packlm.base import program; program.run('module')\" {redirection}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "PYTHONUNBUFFERED": unbuffered},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (status, line)
    if (tmp_path / "data").exists():
        assert (tmp_path / "data").read_text() == "data"  # not what was meant for a closed stream of the same number


@pytest.mark.parametrize("number", program.SIGNALS)
@pytest.mark.parametrize("when", ["importing", "running", "swallowing", "in a library", "cleaning up"])
def test_a_signal_is_one_line_and_status_75(tmp_path, number, when):
    """At import, in the main function, where the exception is swallowed, in code that never returns to Python, twice."""
    ready, wait = "import time; open('ready', 'w').close()\n", "time.sleep(60)"
    short_grace = "from packlm.base import program; program.GRACE_SECONDS = 0.5\n"
    source = {
        "importing": f"{ready}{wait}",
        "running": f"{ready}def main(): {wait}",
        "swallowing": f"{short_grace}{ready}def main():\n  while True:\n    try: {wait}\n    except BaseException: pass",
        # the signal is blocked in the main thread, as if that were not in Python; another thread gets it
        "in a library": f"{short_grace}import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [{number}])\n"
        f"import ctypes\n{ready}def main(): ctypes.CDLL(None).sleep(60)",
        "cleaning up": f"def main():\n  try:\n    {ready}    {wait}\n  finally: "
        "open('cleaning', 'w').close(); time.sleep(1); open('clean', 'w').close()",
    }[when]  # fmt: skip
    process = start(tmp_path, source)
    until = time.monotonic() + 30
    while not (tmp_path / "ready").exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(number)
    if when == "cleaning up":
        while not (tmp_path / "cleaning").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
    status, errors = end(process, 20)
    assert status == 75 and errors.startswith(f"error: stopped by {number.name}"), errors
    assert errors.count("\n") == 1 and "resume" not in errors  # which is for work that can be (`errors.resumable`)
    assert (tmp_path / "clean").exists() == (when == "cleaning up")


def test_a_signal_within_code_from_a_string_is_status_75(tmp_path):
    """As in the making of a named tuple or dataclass: `python -m` would end itself by SIGINT, though the exception was caught."""
    (tmp_path / "module.py").write_text("import os, signal\ndef main(): exec('os.kill(os.getpid(), signal.SIGHUP)')\n")
    (tmp_path / "starter.py").write_text("from packlm.base import program\nprogram.run('module')\n")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run(
        [sys.executable, "-m", "starter"], cwd=tmp_path, env=environment, capture_output=True, text=True, preexec_fn=_default_signals
    )
    assert (done.returncode, done.stderr) == (75, "error: stopped by SIGHUP\n")


@pytest.mark.parametrize("number", program.SIGNALS)
def test_a_signal_at_the_end_of_the_interpreter_changes_nothing(tmp_path, number):
    """In an exit handler, and in a finalizer after all of these, when Python has taken its handlers away."""
    source = (
        f"import atexit, os, signal\nclass Last:\n  def __init__(self): self.kill, self.pid = os.kill, os.getpid()\n"
        f"  def __del__(self): self.kill(self.pid, {int(number)})\n"
        f"import sys\ndef main():\n  sys.last = Last()\n  atexit.register(lambda: os.kill(os.getpid(), {int(number)}))"
    )
    assert end(start(tmp_path, source)) == (0, "")


def test_ignored_signals_stay_ignored(tmp_path):
    """As `nohup` and shells want it."""
    (tmp_path / "module.py").write_text("import os, signal\ndef main(): os.kill(os.getpid(), signal.SIGHUP); print('done')")
    done = subprocess.run(
        ["bash", "-c", f"trap '' HUP; {sys.executable} -c \"from packlm.base import program; program.run('module')\""],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize(
    ("variables", "count"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")]
)  # fmt: skip
def test_waiting_threads_leave_the_processor_to_others(tmp_path, monkeypatch, variables, count):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    source = "import os, sys\nassert 'torch' not in sys.modules\ndef main(): sys.exit(str(os.environ.get('GOMP_SPINCOUNT')))"
    status, errors = end(start(tmp_path, source))
    assert status == 1 and f"SystemExit: {count} (" in errors, errors

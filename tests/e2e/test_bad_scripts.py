"""Entry scripts that do what they should not: the worker answers, or ends in a way that is told."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from script_worker import LIMIT_S, post, worker
from server_process import wait_until

from accelserve.entry_script.launch import kill_group

INIT = "def init():\n    pass\n\n"
RUN = "def run(data):\n    return data\n"
ECHO = INIT + RUN
UNEXPECTED = {"message": "An unexpected error occurred in scoring script. Check the logs for more info."}


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import no_such_module_of_ours\n", "score.py cannot be loaded: ModuleNotFoundError: No module named "),
        ("import cv9\n" + ECHO, "; install cv9 where accelserve is installed ("),
        ("def init(:\n", "score.py cannot be loaded: SyntaxError: invalid syntax (score.py, line 1)"),
        (RUN, "it has no init() at its top level"),
        (INIT, "it has no run() at its top level"),
        (INIT + "run = 5\n", "it has no run() at its top level"),
        (INIT + "def run(): pass\n", "run() needs a parameter for the data"),
        (INIT + "def run(*a): pass\n", "run() cannot accept positional-only arguments"),
        ("import sys\nsys.exit(7)\n", "score.py cannot be loaded: it ended itself with exit code 7"),
        ("raise KeyboardInterrupt\n", "score.py cannot be loaded: KeyboardInterrupt: "),
        (RUN + "def init():\n    raise ValueError('no weights')\n", "init() failed: ValueError: no weights"),
        (RUN + "def init():\n    raise SystemExit\n", "init() failed: it ended itself with exit code None"),
        (RUN + "def init(level):\n    pass\n", "init() failed: TypeError: init() missing 1 required"),
        (RUN + "async def init():\n    raise OSError('gone')\n", "init() failed: OSError: gone"),
        (RUN + "def init():\n    init()\n", "init() failed: RecursionError: "),
        (
            "class Bad(Exception):\n    def __str__(self): raise Bad\n" + RUN + "def init():\n    raise Bad\n",
            "init() failed: Bad: (it cannot be told)",
        ),
        (RUN + "def init():\n    raise ValueError('\\ud800')\n", "init() failed: ValueError: \\ud800"),
        (RUN + "def init():\n    raise ValueError('x' * 10_000_000)\n", "xxx ... (10000000 characters)"),
        (RUN + "import sys\ndef init():\n    sys.exit('x' * 10_000_000)\n", "xxx ... (10000000 characters)"),
    ],
)
def test_a_script_that_cannot_be_served_says_why_and_ends_with_3(tmp_path, script, message):
    with worker(tmp_path, script) as made:
        assert message in made.failed.message
        assert len(made.failed.message) < 2000
        assert made.process.wait(LIMIT_S) == 3


def test_the_traceback_begins_in_the_script(tmp_path):
    with worker(tmp_path, RUN + "def init():\n    deep()\ndef deep():\n    raise ValueError\n") as made:
        assert (
            made.failed.traceback.splitlines()[1].strip().startswith(f'File "{tmp_path / "score.py"}", line 4, in init')
        )


@pytest.mark.parametrize("script", ["import os\nos._exit(9)\n", RUN + "import os\ndef init():\n    os._exit(9)\n"])
def test_a_script_that_ends_the_process_leaves_its_exit_code(tmp_path, script):
    with worker(tmp_path, script) as made:
        assert made.start is None
        assert made.process.wait(LIMIT_S) == 9


@pytest.mark.parametrize(
    "does",
    [
        "raise ValueError('x')",
        "raise SystemExit(1)",
        "import sys; sys.exit()",
        "raise KeyboardInterrupt",
        "raise MemoryError",
        "raise GeneratorExit",
        "raise BaseException",
        "return run(data)",
        "raise type('Bad', (Exception,), {'__str__': lambda self: 1 / 0})()",
        "return bytearray(2**62)",
        "import asyncio; raise asyncio.CancelledError",
        "return undefined",
        "raise StopIteration",
        "raise TimeoutError",
    ],
)
def test_a_run_that_fails_is_answered_and_the_worker_lives_on(tmp_path, does):
    script = INIT + f"def run(data):\n    if data == 'bad':\n        {does}\n    return data\n"
    with worker(tmp_path, script) as made:
        for _ in range(2):
            answer = made.ask(post("bad"))
            assert (answer.status, json.loads(answer.body), answer.failed) == (500, UNEXPECTED, True)
            assert answer.run_ns is None
            assert made.ask(post("x")).body == b'"x"'
    assert made.process.returncode == 0


def test_the_client_is_not_told_what_the_log_is_told(tmp_path):
    script = INIT + "def run(data):\n    raise ValueError('password: swordfish')\n"
    with worker(tmp_path, script) as made:
        answer = made.ask(post("x"))
    assert b"swordfish" not in answer.body
    assert answer.report.splitlines()[1:] == [
        f'  File "{tmp_path / "score.py"}", line 5, in run',
        "    raise ValueError('password: swordfish')",
        "ValueError: password: swordfish",
    ]


def test_a_script_cannot_print_the_key_by_accident(tmp_path):
    script = (
        ECHO + "import os, sys\nprint(os.environ, sys.argv, open('/proc/self/cmdline').read(), globals(), locals())\n"
    )
    with worker(tmp_path, script, score_key="swordfish", score_address="unix:/x") as made:
        made.ready  # noqa: B018
        assert "swordfish" not in made.log()
        assert "AML_APP_ROOT" in made.log()


def test_what_a_script_prints_is_not_an_answer(tmp_path):
    script = (
        "import os, sys\nprint('at import')\n" + INIT + "def run(data):\n    print('é' * 2_000_000)\n"
        "    os.write(1, b'\\xff' * 1000)\n    sys.stderr.write('half a line')\n    print('\\ud800')\n    return data\n"
    )
    with worker(tmp_path, script) as made:
        assert made.ask(post("x")).body == b'"x"'
        log = made.log()
    assert log.startswith("at import\n")
    assert log.count("é") == 2_000_000
    assert "\\ud800" in log


@pytest.mark.parametrize("when", ["import", "run"])
def test_a_script_that_closes_its_standard_streams_is_answered(tmp_path, when):
    close = "import os\nfor number in (0, 1, 2): os.close(number)\n"
    script = (
        (close + ECHO)
        if when == "import"
        else INIT
        + f"def run(data):\n    {close.splitlines()[0]}\n"
        + (
            "    for number in (0, 1, 2):\n        try: os.close(number)\n        except OSError: pass\n"
            "    if data == 'bad': raise ValueError('told all the same')\n    return data\n"
        )
    )
    with worker(tmp_path, script) as made:
        assert made.ask(post("x")).body == b'"x"'
        if when == "run":
            assert "told all the same" in made.ask(post("bad")).report


def test_a_script_that_closes_everything_ends_its_worker_only(tmp_path):
    script = INIT + "import os\ndef run(data):\n    os.closerange(3, 1000)\n    return data\n"
    with worker(tmp_path, script) as made:
        made.send(post("x"))
        assert made.next_frame() is None
        assert made.process.wait(LIMIT_S) == 1


def test_a_child_that_comes_back_from_run_does_not_answer(tmp_path):
    script = INIT + "import os\ndef run(data):\n    return [os.fork() == 0, os.getpid()]\n"
    with worker(tmp_path, script) as made:
        for _ in range(5):
            child, pid = json.loads(made.ask(post("x")).body)
            assert (child, pid) == (False, made.process.pid)
    assert made.process.returncode == 0


def test_programs_and_processes_of_a_script_work_and_do_not_hold_the_socket(tmp_path):
    script = INIT + (
        "import multiprocessing, subprocess\ndef square(x):\n    return x * x\n"
        "def run(data):\n    global sleeper\n    sleeper = subprocess.Popen(['sleep', '60'])\n"
        "    with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "        return [pool.map(square, [1, 2, 3]), sleeper.pid]\n"
    )
    with worker(tmp_path, script) as made:
        squares, sleeper = json.loads(made.ask(post("x")).body)
        try:
            assert squares == [1, 4, 9]
            made.process.kill()
            assert made.next_frame() is None
        finally:
            os.kill(sleeper, signal.SIGKILL)


def test_a_child_of_a_script_can_be_terminated_as_ever(tmp_path):
    script = INIT + (
        "import multiprocessing, time\n"
        "def run(data):\n    child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))\n"
        "    child.start()\n    child.terminate()\n    child.join(30)\n    return child.exitcode\n"
    )
    with worker(tmp_path, script) as made:
        assert made.ask(post("x")).body == b"-15"


def test_threads_of_a_script_do_not_keep_the_worker_from_answering(tmp_path):
    script = (
        "import threading, time\ndef forever():\n    while True: time.sleep(0.001)\n"
        + RUN
        + "def init():\n    for _ in range(5): threading.Thread(target=forever, daemon=True).start()\n"
        "    threading.Thread(target=lambda: 1 / 0).start()\n"
    )
    with worker(tmp_path, script) as made:
        assert made.ask(post("x")).body == b'"x"'
    assert made.process.returncode == 0


@pytest.mark.parametrize(
    "does",
    [
        "import os; os.chdir('/')",
        "import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN); signal.alarm(1)",
        "import signal; signal.signal(signal.SIGTERM, lambda *_: 1 / 0); signal.signal(signal.SIGINT, signal.SIG_DFL)",
        "import sys; sys.stdout = sys.stderr = None",
        "import sys; sys.stdout.close()",
        "import sys; sys.setrecursionlimit(60)",
        "import os; os.environ.clear()",
        "import sys; sys.modules.clear()",
        "import builtins; builtins.print = None",
        "import gc; gc.disable()",
        "import asyncio; asyncio.run(asyncio.sleep(0))",
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))",
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))",
    ],
)
def test_a_script_that_changes_its_process_is_answered(tmp_path, does):
    with worker(tmp_path, RUN + f"def init():\n    {does}\n") as made:
        for _ in range(3):
            assert made.ask(post("x")).body == b'"x"'


def test_files_beside_a_script_do_not_take_the_place_of_the_workers_own(tmp_path):
    for name in ("email", "queue", "types", "orjson", "asyncio"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not this one')\n")
    (tmp_path / "neighbour.py").write_text("word = 'here'\n")
    script = "import neighbour\n" + INIT + "def run(data):\n    return neighbour.word\n"
    with worker(tmp_path, script) as made:
        assert made.ask(post("x")).body == b'"here"'


def test_a_script_that_leaks_files_is_answered_until_there_are_none(tmp_path):
    script = INIT + (
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))\nkept = []\n"
        "def run(data):\n    kept.append(open('/dev/null'))\n    return data\n"
    )
    with worker(tmp_path, script) as made:
        statuses = [made.ask(post("x")).status for _ in range(40)]
    assert statuses[:5] == [200] * 5
    assert statuses[-1] == 500


def test_ctrl_c_and_a_managers_sigterm_are_for_the_server(tmp_path):
    with worker(tmp_path, ECHO) as made:
        made.ready  # noqa: B018
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(made.process.pid, number)
            assert made.ask(post("x")).body == b'"x"'
    assert made.process.returncode == 0


def test_a_signal_does_not_break_a_large_answer(tmp_path):
    with worker(tmp_path, INIT + "def run(data):\n    return 'x' * 30_000_000\n") as made:
        made.ready  # noqa: B018
        made.send(post("x"))
        for _ in range(20):
            os.kill(made.process.pid, signal.SIGTERM)
        _, answer = made.receive()
        assert len(answer.body) == 30_000_002


@pytest.mark.parametrize(
    "does",
    [
        "asyncio.current_task().cancel(); await asyncio.sleep(60)",
        "raise asyncio.CancelledError",
        "raise SystemExit",
        "raise KeyboardInterrupt",
        "async with asyncio.timeout(0.01): await asyncio.sleep(60)",
    ],
)
def test_an_async_run_that_ends_itself_is_answered_and_the_others_go_on(tmp_path, does):
    script = (
        "import asyncio\n" + INIT + f"async def run(data):\n    if data == 'bad':\n        {does}\n    return data\n"
    )
    with worker(tmp_path, script) as made:
        sent = {made.send(post(body)): body for body in ("a", "bad", "b")}
        answers = {sent[number]: answer for number, answer in (made.receive() for _ in range(3))}
        assert {body: answer.status for body, answer in answers.items()} == {"a": 200, "bad": 500, "b": 200}
        assert (answers["a"].body, json.loads(answers["bad"].body)) == (b'"a"', UNEXPECTED)


def test_an_answer_is_whole_though_its_task_is_cancelled_while_it_is_sent(tmp_path):
    script = (
        "import asyncio\n" + INIT + "async def run(data):\n    if data == 'large':\n"
        "        asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)\n"
        "        asyncio.current_task().cancel()\n        return 'x' * 20_000_000\n    return data\n"
    )
    with worker(tmp_path, script) as made:
        sent = {made.send(post(body)): body for body in ("large", "a", "large", "b")}
        bodies = {sent[number]: answer.body for number, answer in (made.receive() for _ in range(4))}
        assert (bodies["a"], bodies["b"], len(bodies["large"])) == (b'"a"', b'"b"', 20_000_002)


def test_a_child_that_comes_back_from_an_async_run_leaves_its_parents_loop_alone(tmp_path):
    script = (
        "import asyncio, os\n" + INIT + "async def run(data):\n    child = os.fork()\n"
        "    if child:\n        os.waitpid(child, 0)\n    return [child == 0, await asyncio.to_thread(len, data)]\n"
    )
    with worker(tmp_path, script) as made:
        for _ in range(3):
            assert made.ask(post("four")).body == b"[false,4]"
    assert made.process.returncode == 0


def test_a_worker_that_is_in_another_process_group_is_killed_all_the_same(tmp_path):
    with worker(tmp_path, ECHO) as made:
        made.ready  # noqa: B018
        kill_group(made.process.pid)
        assert made.process.wait(LIMIT_S) == -signal.SIGKILL


PARENT = """
import os, socket, subprocess, sys
ours, theirs = socket.socketpair()
ours.set_inheritable(True)  # held open by a process that lives on, so that only the parent's death ends the worker
holder = subprocess.Popen(["sleep", "60"], pass_fds=(ours.fileno(),))
child = subprocess.Popen(
    [sys.executable, "-m", "accelserve.entry_script.worker", str(theirs.fileno()), str(os.getpid())],
    pass_fds=(theirs.fileno(),),
)
print(child.pid, holder.pid, flush=True)
sys.stdin.read()
"""


def test_a_worker_is_killed_when_its_server_dies_whatever_holds_its_socket(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with parent:
        child, holder = map(int, parent.stdout.readline().split())
        try:
            wait_until(lambda: "accelserve" in Path(f"/proc/{child}/cmdline").read_text())
            os.kill(parent.pid, signal.SIGKILL)
            wait_until(lambda: not is_alive(child))
        finally:
            os.kill(holder, signal.SIGKILL)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_worker_of_another_parent_ends_at_once(tmp_path):
    done = subprocess.run([sys.executable, "-m", "accelserve.entry_script.worker", "0", "1"], timeout=LIMIT_S)
    assert done.returncode == 1

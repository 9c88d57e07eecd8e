"""A virtual environment for each peer, made from requirements/; and why one cannot be had."""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"
NEWEST_PYTHON = {"pytriton": (3, 11, 2)}  # its Python back end breaks on the standard library of later ones
PRIVATE = "ACCELSERVE_BENCH_PRIVATE_NETWORK"
INSTALL_S = 900


def prepare(names: Iterable[str], folder: Path) -> dict[str, str]:
    """Make the environments that are missing; returns {environment: why it cannot be had}.

    The files name every package, so nothing is left to be resolved on the day. What is complete is left alone.
    """
    reasons = {name: _make(name, folder / name) for name in dict.fromkeys(names)}
    return {name: reason for name, reason in reasons.items() if reason}


def python_of(name: str, folder: Path) -> Path:
    return folder / name / "bin" / "python"


def _make(name: str, venv: Path) -> str:
    """Returns why it cannot be had, "" when it is there."""
    stamp, requirements = venv / "complete", REQUIREMENTS / f"{name}.txt"
    if stamp.exists() and stamp.read_text() == requirements.read_text():
        return ""
    python = find_python(NEWEST_PYTHON.get(name))
    if not python:
        return f"wants Python 3.11 up to {'.'.join(map(str, NEWEST_PYTHON[name]))}"
    print(f"{name}: making its environment", file=sys.stderr, flush=True)
    install = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in ([python, "-m", "venv", "--clear", str(venv)], [*install, "--no-deps", "-r", str(requirements)]):
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"could not be installed: {error}"
        if done.returncode:
            return f"could not be installed: {_last_line(done.stderr or done.stdout)}"
    stamp.write_text(requirements.read_text())
    return ""


def find_python(newest: tuple[int, ...] | None) -> str:
    """An interpreter of 3.11, up to `newest`; the one that runs this where no bound is given. "" if there is none."""
    if newest is None:
        return sys.executable
    found = (shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/bin") for name in ("python3.11", "python3"))
    candidates = dict.fromkeys(path for path in (*found, "/usr/bin/python3.11", "/usr/bin/python3") if path)
    return next((path for path in candidates if (3, 11) <= _version(path) <= newest), "")


@functools.cache
def _version(python: str) -> tuple[int, ...]:
    say = "import sys; print(*sys.version_info[:3])"
    try:
        done = subprocess.run([python, "-c", say], capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return ()
    return tuple(map(int, done.stdout.split())) if done.returncode == 0 else ()


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def enter_private_network(again: list[str]) -> str:
    """Start the command anew in a network that has only loopback; returns why not, "" where this is it already.

    Some peers open listeners that cannot be kept on loopback; there they reach nobody.
    """
    if is_private_network():
        return ""
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    prefix = ["unshare", "--net", *as_root, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    for tool in ("unshare", "ip"):
        if not shutil.which(tool):
            return f"{tool} is missing, so there is no private network"
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, timeout=20, check=False)
    if tried.returncode:
        return f"no private network: {_last_line(tried.stderr)}"
    os.environ[PRIVATE] = "1"
    os.execvp(prefix[0], [*prefix, *again])


def is_private_network() -> bool:
    return PRIVATE in os.environ

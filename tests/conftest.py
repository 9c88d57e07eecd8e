"""Puts this folder and e2e/ on the path, so that every test can `import model_builders` and start a server."""

import signal
import sys
from pathlib import Path

TESTS = Path(__file__).parent
for folder in map(str, (TESTS / "e2e", TESTS)):
    if folder not in sys.path:
        sys.path.insert(0, folder)


def pytest_configure() -> None:
    """Processes under test end by Ctrl-C, also where the tests run in the background of a shell, which has it ignored.

    A process inherits that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)

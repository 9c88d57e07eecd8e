"""Puts this folder and e2e/ on the path, so that every test can `import model_builders` and start a server."""

import sys
from pathlib import Path

TESTS = Path(__file__).parent
for folder in map(str, (TESTS / "e2e", TESTS)):
    if folder not in sys.path:
        sys.path.insert(0, folder)

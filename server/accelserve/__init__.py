"""accelserve: a model server for accelerators.

The package's map is `server/README.md`. Importing this package imports nothing heavy.
"""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`accelserve.score` is put here in an entry script's process (entry_script/worker.py)."""
    if name == "score":
        raise AttributeError("accelserve.score is for entry scripts that the server runs; else use accelserve.client")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""What a script in .venv-compat tells the test that started it: the outcome of each of its flows, as JSON."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import grpc


def tell(flows: Mapping[str, Callable[[], Any]]) -> None:
    """Run all. stdout: {name: {"answer", "took_s"}}; "code" and "text" take the place of "answer" if it was refused."""
    told = {}
    for name, flow in flows.items():
        started = time.monotonic()
        try:
            outcome = {"answer": flow()}
        except grpc.RpcError as error:
            outcome = {"code": error.code().name, "text": error.details()}
        told[name] = outcome | {"took_s": time.monotonic() - started}
    print(json.dumps(told))

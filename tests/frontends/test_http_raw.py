"""Raw scoring's handler, without a server; what bodies mean is in tests/e2e/test_raw_scoring.py."""

import asyncio
from types import SimpleNamespace

from accelserve.clock import MonotonicClock
from accelserve.errors import Kind, ScoringError
from accelserve.frontends.http_exchange import HttpExchange
from accelserve.frontends.http_messages import HttpRequest, head_of
from accelserve.frontends.http_raw import RawScoring
from accelserve.frontends.offload import Offload
from accelserve.messages import Priority
from accelserve.observability.metrics import Metrics
from accelserve.tensors import BY_NAME, Signature, TensorSpec

PICTURES = Signature("s", {"x": TensorSpec("x", BY_NAME["uint8"], (-1, 8, 8, 3), "x")}, {})


def test_a_picture_whose_answer_would_come_too_late_is_not_decoded():
    asked = []

    def check(servable, deadline_ns, priority):
        asked.append((deadline_ns is not None, priority))
        raise ScoringError(Kind.OVERLOADED, "too late", reason="wait_too_long", retry_after_s=1)

    model = SimpleNamespace(preprocessing={"s": object()})
    servable = SimpleNamespace(name="m", version=1, model=model, signature=lambda name: PICTURES)
    scorer = SimpleNamespace(resolve=lambda ref: servable, check=check)
    clock = MonotonicClock()
    raw = RawScoring(scorer, None, HttpExchange(Metrics(clock), clock), Offload(), 2**20)  # no decoder at all
    headers = [(b"x-accelserve-timeout-ms", b"100"), (b"x-accelserve-priority", b"high")]
    answer = asyncio.run(raw.handle(HttpRequest(head_of("POST", "/score", b"", headers), b"\xff\xd8\xff")))
    assert (answer.status, asked) == (503, [(True, Priority.HIGH)])
    assert b"wait_too_long" in answer.lines

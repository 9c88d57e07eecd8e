"""Who is let in: by which key, and where nobody is asked for one."""

import re

import pytest

from accelserve.errors import Kind, Outcome
from accelserve.frontends.guard import OPEN_GRPC, OPEN_HTTP, Guard
from accelserve.keys import Keyring, new_keys

KEYS = new_keys()
GOOD = f"Bearer {KEYS.primary}"


def guard(open_paths: re.Pattern[str] | None = OPEN_HTTP) -> Guard:
    return Guard(Keyring(KEYS), open_paths)


@pytest.mark.parametrize("path", ["/score", "/v1/models", "/V1/models", "/docs", "/swagger.json", "/", "", "/healthz/"])
def test_a_path_is_for_those_with_a_key(path):
    assert guard().refusal(path, GOOD) is None
    refusal = guard().refusal(path, None)
    assert refusal is not None
    assert refusal.kind is Kind.UNAUTHENTICATED
    assert refusal.kind.outcome is Outcome.REFUSED


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/readyz/", "/readyz/resnet50", "/metrics", "/monitoring/prometheus/metrics"]
)
def test_probes_and_scrapes_need_none_unless_everything_does(path):
    for sent in (None, "Bearer ", "Bearer wrong-wrong-wrong-wrong"):
        assert guard().refusal(path, sent) is None
        assert guard(None).refusal(path, sent) is not None
    assert guard(None).refusal(path, GOOD) is None


@pytest.mark.parametrize(
    "path",
    ["/readyz/a/b", "/readyz/../score", "/metrics/x", "/metricsx", "/healthz\n", "x/healthz", "/readyz/x\n/score"],
)
def test_what_only_looks_like_a_probe_needs_one(path):
    assert guard().refusal(path, None) is not None


def test_preflight_needs_none_where_that_is_said():
    asked = Guard(Keyring(KEYS), None, open_preflight=True)
    assert asked.refusal("/score", None, "OPTIONS") is None
    assert asked.refusal("/score", None, "POST") is not None
    assert guard().refusal("/score", None, "OPTIONS") is not None


def test_health_over_grpc_needs_none_and_reflection_does():
    porter = guard(OPEN_GRPC)
    assert porter.refusal("/grpc.health.v1.Health/Check", None) is None
    assert porter.refusal("/grpc.health.v1.Health/Watch", None) is None
    assert porter.refusal("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", None) is not None
    assert porter.refusal("/tensorflow.serving.PredictionService/Predict", None) is not None
    assert porter.refusal("", None) is not None


def test_a_client_learns_whether_its_key_was_missing_or_wrong_and_not_what_it_sent():
    missing = {str(guard().refusal("/score", sent)) for sent in (None, "", "Bearer", "bearer ", " ")}
    assert len(missing) == 1
    wrong = str(guard().refusal("/score", "Bearer hunter2-hunter2-hunter2"))
    assert {wrong}.isdisjoint(missing)
    assert "hunter2" not in wrong


def test_its_version_tells_that_the_keys_have_changed():
    ring = Keyring(KEYS)
    asked = Guard(ring, OPEN_HTTP)
    first = asked.version
    ring.replace(new_keys())
    assert first
    assert asked.version != first

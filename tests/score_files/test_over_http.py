"""What goes over HTTP, and what is read of the answer, with a client that only pretends."""

import base64
import json
import ssl
from pathlib import Path

import pytest

from accelserve.client import ServerError
from accelserve.client.values import Told
from accelserve.errors import ExitCode
from accelserve.score_files.asking import FileBody, Question, RefusalError
from accelserve.score_files.over_http import HttpAsker

JPEG = FileBody(Path("a.jpg"), b"\xff\xd8\xff")
PNG = FileBody(Path("b.png"), b"\x89PNG")


class FakeClient:
    def __init__(self, *answers: object, headers: dict[str, str] | None = None) -> None:
        self._answers = list(answers)
        self._headers = headers or {}
        self.seen: list[tuple[str, str, bytes | None]] = []

    def ask(self, method, path, body=None, *, headers=None, timeout_s=None):
        self.seen.append((method, path, body))
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Told(json.dumps(answer).encode(), self._headers)

    def close(self) -> None:
        pass


def asker(client: FakeClient, **question: object) -> HttpAsker:
    ticks = iter(range(100))
    return HttpAsker(client, "http://h", Question(**question), lambda: next(ticks) / 1000)


def b64(file: FileBody) -> dict[str, str]:
    return {"b64": base64.b64encode(file.body).decode()}


def test_a_lone_file_goes_as_it_is():
    client = FakeClient([0.1, 0.9])
    reply = asker(client, model="rn 50").ask([JPEG])
    assert client.seen == [("POST", "/score?model=rn+50", JPEG.body)]
    assert reply.answers == [[0.1, 0.9]]


def test_several_files_and_a_named_input_go_as_json():
    client = FakeClient([[0.1], [0.9]], {"y": [1]})
    asker(client).ask([JPEG, PNG])
    assert json.loads(client.seen[0][2]) == {"instances": [b64(JPEG), b64(PNG)]}
    asker(client, input="images").ask([JPEG])
    assert json.loads(client.seen[1][2]) == {"instances": [{"images": b64(JPEG)}]}


def test_each_file_gets_its_row_of_each_output():
    client = FakeClient({"a": [1, 2], "b": [[3], [4]]}, {"a": [1, 2], "b": [[3], [4]]})
    assert asker(client).ask([JPEG, PNG]).answers == [{"a": 1, "b": [3]}, {"a": 2, "b": [4]}]
    assert asker(client, output="b").ask([JPEG, PNG]).answers == [[3], [4]]


@pytest.mark.parametrize("answer", [[1], 7, {"a": [1, 2], "b": [1]}, {}])
def test_an_answer_without_a_part_for_each_file_is_refused(answer):
    with pytest.raises(RefusalError, match="NO ROWS"):
        asker(FakeClient(answer)).ask([JPEG, PNG])


def test_an_output_that_is_not_there_is_refused_naming_those_that_are():
    with pytest.raises(RefusalError, match="it has: a, b"):
        asker(FakeClient({"a": 1, "b": 2}), output="c").ask([JPEG])


def test_the_server_ranks_where_it_can_and_is_asked_without_where_it_cannot():
    ranked = [{"index": 1, "label": "b", "score": 0.9}]
    client = FakeClient(ranked, ServerError(400, "top=K needs one vector"), {"x": [1]}, {"x": [2]})
    once = asker(client, top=5)
    assert once.ask([JPEG]).answers == [ranked]
    assert once.ask([JPEG]).answers == [{"x": [1]}]
    assert once.ask([JPEG]).answers == [{"x": [2]}]
    assert [path for _, path, _ in client.seen] == ["/score?top=5", "/score?top=5", "/score", "/score"]


def test_with_labels_to_compare_all_scores_are_asked_for():
    client = FakeClient([0.25, 0.75])
    assert asker(client, top=1, labelled=True).ask([JPEG]).answers == [[0.25, 0.75]]
    assert client.seen[0][1] == "/score"


def test_a_file_that_is_bad_either_way_leaves_the_ranking_on():
    bad = ServerError(400, "no picture")
    client = FakeClient(bad, bad, [{"index": 1, "score": 0.9}])
    once = asker(client, top=5)
    with pytest.raises(RefusalError, match="no picture"):
        once.ask([JPEG])
    once.ask([PNG])
    assert client.seen[-1][1] == "/score?top=5"


def test_times_are_the_servers_and_the_rest_is_the_network():
    told = {"x-accelserve-timing": "queue=100us, decode=200us, compute=300us, batch=4, position=0, closed=free"}
    spent = asker(FakeClient(1, headers=told)).ask([JPEG]).spent
    assert (spent.queue_ms, spent.decode_ms, spent.compute_ms, spent.rows) == (0.1, 0.2, 0.3, 4)
    assert spent.total_ms == pytest.approx(1.0)
    assert spent.network_ms == pytest.approx(0.4)


def test_of_another_server_the_scripts_time_is_told_where_it_tells_it():
    assert asker(FakeClient(1, headers={"x-ms-run-fn-exec-ms": "0.250"})).ask([JPEG]).spent.compute_ms == 0.25
    assert asker(FakeClient(1, headers={"x-ms-run-fn-exec-ms": "soon"})).ask([JPEG]).spent.compute_ms is None


@pytest.mark.parametrize("number", ["9" * 400, "9" * 5000])
@pytest.mark.parametrize("told", ["x-accelserve-timing: queue={}us, batch={}", "x-ms-run-fn-exec-ms: {}"])
def test_times_that_no_clock_shows_are_not_believed(told, number):
    name, _, value = told.partition(": ")
    spent = asker(FakeClient(1, headers={name: value.replace("{}", number)})).ask([JPEG]).spent
    assert (spent.queue_ms, spent.compute_ms) == (None, None)


@pytest.mark.parametrize(
    ("error", "status", "code", "unreached"),
    [
        (ServerError(401, "which key?"), "401", ExitCode.USAGE, False),
        (ServerError(404, "no model"), "404", ExitCode.NOT_FOUND, False),
        (ServerError(422, "no picture"), "422", None, False),
        (ConnectionRefusedError(111, "Connection refused"), "NO CONNECTION", ExitCode.NOT_FOUND, True),
        (TimeoutError("timed out"), "TIMEOUT", None, False),
    ],
)
def test_what_went_wrong_says_whether_others_would_fail_too(error, status, code, unreached):
    with pytest.raises(RefusalError) as refused:
        asker(FakeClient(error)).ask([JPEG])
    assert (refused.value.status, refused.value.ends_with, refused.value.unreached) == (status, code, unreached)


@pytest.mark.parametrize("reason", ["WRONG_VERSION_NUMBER", "HTTP_REQUEST"])
def test_a_server_without_tls_is_said_to_be_one(reason):
    error = ssl.SSLError(1, "some words of OpenSSL")
    error.reason = reason
    with pytest.raises(RefusalError, match="http:// in place of https://") as refused:
        asker(FakeClient(error)).ask([JPEG])
    assert refused.value.ends_with is ExitCode.NOT_FOUND


def test_when_to_come_again_is_passed_on():
    with pytest.raises(RefusalError) as refused:
        asker(FakeClient(ServerError(503, "busy", "queue_full", 2))).ask([JPEG])
    assert refused.value.again_s == 2

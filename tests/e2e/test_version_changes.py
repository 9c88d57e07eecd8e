"""Versions that come and go while a server serves: nobody is refused, and a bad one hurts nobody."""

from pathlib import Path

from hammering import all_have_seen, badly_over_http, hammering, is_state, over_grpc, over_http, states
from server_process import Server, serving, wait_until
from talk import Calls, Connection, Scrape, ask, instances, row

from accelserve.codecs.tfserving_proto import decode_predict_response
from model_builders import synthetic_model

ECHO, DOUBLE = "echo", "double"
PREDICT = "/v1/models/m:predict"
OFTEN = "--poll-interval=0.1"


def put(base: Path, version: int, behaviour: str = ECHO, settings: str = "", text: str | None = None) -> Path:
    """A new version that appears whole, by a rename."""
    spec = f'behaviour = "{behaviour}"\n{settings}\n[inputs.x]\ndtype = "float32"\nshape = [-1, -1]\noutput = "y"\n'
    hidden = base.parent / f".{base.name}-{version}"
    synthetic_model(hidden / "synthetic.toml", spec if text is None else text)
    base.mkdir(exist_ok=True)
    return hidden.rename(base / str(version))


def error_of(server: Server, version: int) -> str:
    found = ask(server, f"/v1/models/m/versions/{version}").json["model_version_status"]
    return found[0]["status"]["error_message"]


def test_a_new_version_takes_over_under_load_without_one_lost_request(tmp_path):
    base = tmp_path / "m"
    put(base, 1, ECHO, "delay_ms = 2.0")
    with serving(f"--model=m={base}", OFTEN, log=tmp_path / "log") as server, Calls(server) as calls:
        # Bodies of 90,000 numbers are read off the loop: time enough for the version to be replaced meanwhile.
        clients = [over_http(server) for _ in range(4)] + [over_http(server, columns=90_000), over_grpc(calls)]
        clients += [over_grpc(calls) for _ in range(3)]
        with hammering(clients):
            put(base, 2, DOUBLE, "delay_ms = 2.0\nload_delay_ms = 1000.0")
            wait_until(is_state(server, v1="AVAILABLE", v2="LOADING"))
            assert ask(server, "/readyz").status == 200
            wait_until(is_state(server, v1="END", v2="AVAILABLE"))
            wait_until(all_have_seen(clients, 2))
    for client in clients:
        assert client.faults == []
        assert client.versions == sorted(client.versions), "an answer of the old version came after one of the new"
        assert {1, 2} == set(client.versions)
        assert all(factor == version for version, factor in client.answers), "an answer was not its version's own"


def test_versions_that_follow_each_other_quickly_lose_no_request_either(tmp_path):
    base = tmp_path / "m"
    put(base, 1)
    with serving(f"--model=m={base}", OFTEN, log=tmp_path / "log") as server, Calls(server) as calls:
        clients = [over_http(server) for _ in range(3)] + [over_grpc(calls)]
        wrong = badly_over_http(server)
        with hammering([*clients, wrong]):
            for version in range(2, 8):
                put(base, version)
                wait_until(all_have_seen(clients, version))
        # Neither an answer nor a refusal has kept an old version.
        wait_until(lambda: states(server) == {7: "AVAILABLE", **dict.fromkeys(range(6, 0, -1), "END")})
    assert wrong.faults == []
    for client in clients:
        assert client.faults == []
        assert client.versions == sorted(client.versions)


def test_what_the_old_version_has_accepted_it_answers_itself(tmp_path):
    base = tmp_path / "m"
    put(base, 1, ECHO, "delay_ms = 1500.0\ndelay_if_contains = 7.0")
    (base / "accelserve.toml").write_text("[batching]\nmax_batch_size = 1\n")
    with serving(f"--model=m={base}", OFTEN, log=tmp_path / "log") as server, Calls(server) as calls:
        with Connection(server.http_port) as running, Connection(server.http_port) as queued:
            running.send(PREDICT, instances((7, 1)))
            wait_until(lambda: Scrape(server).sum("accelserve_batches_running", model="m") == 1)
            queued.send(PREDICT, instances((3, 1)))
            by_grpc = calls.start("m", {"x": row(4, 1)})
            wait_until(lambda: Scrape(server).sum("accelserve_queue_rows", model="m") == 2)
            put(base, 2, DOUBLE)
            wait_until(is_state(server, v1="UNLOADING", v2="AVAILABLE"))
            assert ask(server, PREDICT, instances((3, 1))).json["predictions"] == [[6.0, 2.0]]
            answers = [running.read(), queued.read()]
        assert [answer.json["predictions"] for answer in answers] == [[[7.0, 1.0]], [[3.0, 1.0]]]
        assert [answer.headers["x-accelserve-model"] for answer in answers] == ["m:1", "m:1"]
        assert decode_predict_response(by_grpc.result()).version == 1
        wait_until(is_state(server, v1="END"))


# --- a bad version


def test_a_new_version_that_does_not_load_leaves_the_old_one_serving_and_says_why(tmp_path):
    base = tmp_path / "m"
    put(base, 1)
    with serving(f"--model=m={base}", OFTEN, log=tmp_path / "log") as server, Calls(server) as calls:
        clients = [over_http(server), over_grpc(calls)]
        with hammering(clients):
            bad = put(base, 2, settings='load_error = "the weights are gone"')
            wait_until(is_state(server, v1="AVAILABLE", v2="END"))
            assert "the weights are gone" in error_of(server, 2)
            assert ask(server, "/readyz").json == {"status": "ready", "models": {"m": "AVAILABLE"}}
            assert "m:1 serves on" in server.log.read_text()
            refused = ask(server, "/v1/models/m/versions/2:predict", instances((1, 1)))
            assert (refused.status, refused.headers["x-accelserve-reason"]) == (404, "load_failed")
            tries = server.log.read_text().count("loading m:2")
            # It is tried again when its files change.
            synthetic_model(bad / "synthetic.toml", (base / "1" / "synthetic.toml").read_text() + "\n")
            wait_until(is_state(server, v1="END", v2="AVAILABLE"))
            wait_until(all_have_seen(clients, 2))
        assert tries == 1
    assert [client.faults for client in clients] == [[], []]


# --- which versions


def test_all_versions_serve_at_once_and_a_request_may_name_one(tmp_path):
    base = tmp_path / "m"
    put(base, 1, ECHO)
    put(base, 3, DOUBLE)
    (tmp_path / "server.toml").write_text(f'[models.m]\npath = "{base}"\nversions = "all"\n')
    with (
        serving(f"--config={tmp_path / 'server.toml'}", OFTEN, log=tmp_path / "log") as server,
        Calls(server) as calls,
    ):
        wait_until(is_state(server, v1="AVAILABLE", v3="AVAILABLE"))
        assert list(states(server)) == [3, 1]
        for path, factor in (
            (PREDICT, 2),
            ("/v1/models/m/versions/1:predict", 1),
            ("/v1/models/m/versions/3:predict", 2),
        ):
            assert ask(server, path, instances((5, 5))).json["predictions"] == [[5.0 * factor] * 2]
        assert ask(server, "/v1/models/m/versions/2:predict", instances((5, 5))).status == 404
        assert decode_predict_response(calls.start("m", {"x": row(1, 1)}).result()).version == 3
        page = Scrape(server)
        for version in ("1", "3"):
            assert page.sum("accelserve_model_state", model="m", version=version, state="AVAILABLE") == 1
        put(base, 4, ECHO)
        wait_until(is_state(server, v1="AVAILABLE", v3="AVAILABLE", v4="AVAILABLE"))
        assert ask(server, PREDICT, instances((5, 5))).json["predictions"] == [[5.0, 5.0]]


def test_the_wanted_versions_serve_and_no_newer_one(tmp_path):
    base = tmp_path / "m"
    for version in (1, 2):
        put(base, version)
    (tmp_path / "server.toml").write_text(f'[models.m]\npath = "{base}"\nversions = [1]\n')
    with serving(f"--config={tmp_path / 'server.toml'}", "--poll-interval=0", log=tmp_path / "log") as server:
        assert states(server) == {1: "AVAILABLE"}


def test_a_version_that_is_taken_back_gives_way_to_the_one_before(tmp_path):
    base = tmp_path / "m"
    put(base, 1, ECHO)
    newest = put(base, 2, DOUBLE)
    with serving(f"--model=m={base}", OFTEN, log=tmp_path / "log") as server, Calls(server) as calls:
        clients = [over_http(server), over_grpc(calls)]
        with hammering(clients):
            newest.rename(tmp_path / ".gone")
            wait_until(is_state(server, v1="AVAILABLE", v2="END"))
            wait_until(all_have_seen(clients, 1))
    assert [client.faults for client in clients] == [[], []]


def test_a_model_whose_path_vanishes_serves_on(tmp_path):
    base = tmp_path / "m"
    put(base, 1)
    with serving(f"--model=m={base}", OFTEN, log=tmp_path / "log") as server:
        base.rename(tmp_path / ".away")
        wait_until(lambda: "m:1 serves on" in server.log.read_text())
        assert ask(server, PREDICT, instances((5, 5))).status == 200
        (tmp_path / ".away").rename(base)
        put(base, 2)
        wait_until(is_state(server, v2="AVAILABLE"))

"""`serve --store`: what is registered is served, what comes and goes is noticed, and what is served is kept."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hammering import all_have_seen, hammering, is_state, over_grpc, over_http, states
from server_process import Server, end, line_of, run_to_end, serving, start, wait_until
from talk import Calls, ask, instances, outputs_of, row

from accelserve.errors import Kind, ScoringError
from accelserve.models.store import ModelStore
from model_builders import synthetic_model

OFTEN = "--poll-interval=0.1"
SPEC = 'behaviour = "{behaviour}"\n{settings}\n[inputs.x]\ndtype = "float32"\nshape = [-1, 2]\noutput = "y"\n'
LISTENING = re.compile(r"listening: (?P<http>http://\S+) \(HTTP\) (?P<grpc>\S+) \(gRPC\)")


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "store")


def register(store: ModelStore, name: str, behaviour: str = "echo", settings: str = "") -> int:
    """The next version of a name, which answers with its input times 1 (echo) or 2 (double)."""
    text = SPEC.format(behaviour=behaviour, settings=settings)
    source = store.root.parent / "sources" / f"{name}.synthetic.toml"
    return store.register(name, synthetic_model(source, text)).version


def predict(server: Server, path: str = "m") -> list[list[float]]:
    answer = ask(server, f"/v1/models/{path}:predict", instances((1, 3)))
    assert answer.status == 200, answer.body
    return answer.json["predictions"]


@contextmanager
def waiting(*arguments: object, log: Path) -> Iterator[Server]:
    """A server that listens and has no model yet."""
    process = start(arguments, log)
    try:
        found = LISTENING.search(line_of(process))
        assert found, log.read_text()
        yield Server(process, found["http"], found["grpc"], log)
    finally:
        end(process)


def test_an_empty_store_is_waited_for_and_the_first_model_is_served(tmp_path, store):
    with waiting(f"--store={store.root}", OFTEN, log=tmp_path / "log") as server, Calls(server) as calls:
        ready = ask(server, "/readyz")
        assert (ready.status, ready.json["models"]) == (503, {})
        assert ready.json["reason"] == f"store {store.root} holds no model yet"
        refused = ask(server, "/score", instances((1, 3)))
        assert (refused.status, refused.json["error"]) == (503, ready.json["reason"])
        assert int(refused.headers["retry-after"]) >= 1
        assert ask(server, "/v1/models/m:predict", instances((1, 3))).status == 404
        assert ask(server, "/v1/models").json == {"models": []}
        register(store, "m", "double")
        assert "is ready: " in line_of(server.process)
        assert ask(server, "/readyz").status == 200
        assert ask(server, "/score", instances((1, 3))).json == [[2.0, 6.0]]
        assert outputs_of(calls.start("", {"x": row(1, 3)}).result())["y"].tolist() == [[2.0, 6.0]]
        assert server.stop() == 0


def test_a_new_version_takes_over_under_load_and_is_kept_from_being_deleted(tmp_path, store):
    register(store, "m")
    with serving(f"--store={store.root}", OFTEN, log=tmp_path / "log") as server, Calls(server) as calls:
        clients = [over_http(server), over_http(server), over_grpc(calls), over_grpc(calls)]
        with hammering(clients):
            register(store, "m", "double", "load_delay_ms = 200.0")
            wait_until(is_state(server, v1="END", v2="AVAILABLE"))
            wait_until(all_have_seen(clients, 2))
            with pytest.raises(ScoringError, match="in use by accelserve serve") as caught:
                store.delete("m", 2)
            assert caught.value.kind is Kind.CONFLICT
            store.delete("m", 1)  # nobody serves it any more
        for client in clients:
            assert client.faults == []
            assert client.versions == sorted(client.versions)
            assert all(factor == version for version, factor in client.answers)
        server.process.kill()
        server.process.wait(20)
        store.delete("m", 2)  # a hold ends with its process


def test_models_come_and_go_while_others_serve(tmp_path, store):
    register(store, "m")
    with serving(f"--store={store.root}", OFTEN, log=tmp_path / "log") as server, Calls(server) as calls:
        clients = [over_http(server), over_grpc(calls)]
        with hammering(clients):
            register(store, "late", "double")
            wait_until(lambda: states(server, "late") == {1: "AVAILABLE"})
            assert predict(server, "late") == [[2.0, 6.0]]
            register(store, "broken", settings='load_error = "the weights are gone"')
            wait_until(lambda: states(server, "broken") == {1: "END"})
            assert ask(server, "/readyz").json["models"] == {"m": "AVAILABLE", "late": "AVAILABLE", "broken": "END"}
            shutil.rmtree(store.root / "late")  # by hand: `delete` refuses what is served
            wait_until(lambda: ask(server, "/v1/models/late").status == 404)
            assert ask(server, "/readyz").status == 200
        assert [client.faults for client in clients] == [[], []]


def test_when_the_last_model_is_gone_the_server_waits_for_the_next(tmp_path, store):
    register(store, "m")
    with serving(f"--store={store.root}", OFTEN, log=tmp_path / "log") as server:
        shutil.rmtree(store.root / "m")
        wait_until(lambda: ask(server, "/readyz").status == 503)
        wait_until(lambda: ask(server, "/v1/models").json == {"models": []})
        register(store, "n", "double")
        wait_until(lambda: ask(server, "/readyz").status == 200)
        assert predict(server, "n") == [[2.0, 6.0]]
        assert server.stop() == 0


def test_one_version_of_the_store_may_be_served_alone_and_next_to_a_path(tmp_path, store):
    register(store, "m", "echo")
    register(store, "m", "double")
    register(store, "other")
    path = synthetic_model(tmp_path / "p.synthetic.toml")
    arguments = (f"--store={store.root}", "--model=m:1", f"--model=p={path}", OFTEN)
    with serving(*arguments, log=tmp_path / "log") as server:
        wait_until(lambda: ask(server, "/readyz").json["models"] == {"p": "AVAILABLE", "m": "AVAILABLE"})
        assert states(server) == {1: "AVAILABLE"}
        assert (predict(server, "m"), predict(server, "p")) == ([[1.0, 3.0]], [[2.0, 6.0]])
        assert ask(server, "/v1/models/other:predict", instances((1, 3))).status == 404


def test_the_file_may_choose_the_versions_of_a_stored_model(tmp_path, store):
    for behaviour in ("echo", "double", "echo"):
        register(store, "m", behaviour)
    (tmp_path / "server.toml").write_text('store = "store"\n[models.m]\nversions = "latest:2"\ninstances = 2\n')
    with serving(f"--config={tmp_path / 'server.toml'}", OFTEN, log=tmp_path / "log") as server:
        wait_until(is_state(server, v2="AVAILABLE", v3="AVAILABLE"))
        assert predict(server, "m/versions/2") == [[2.0, 6.0]]
        register(store, "m", "double")
        wait_until(is_state(server, v2="END", v3="AVAILABLE", v4="AVAILABLE"))


def test_a_name_that_a_path_and_the_store_have_is_a_mistake_of_the_configuration(tmp_path, store):
    register(store, "m")
    path = synthetic_model(tmp_path / "p.synthetic.toml")
    arguments = (f"--store={store.root}", f"--model=m={path}")
    assert run_to_end(arguments, tmp_path / "log") == 2
    assert f"--model m=...: store {store.root} has a model of this name too" in (tmp_path / "log").read_text()


def test_without_a_folder_it_is_the_store_that_register_uses(tmp_path):
    register(ModelStore(tmp_path / "data" / "accelserve" / "store"), "m")
    environ = {"XDG_DATA_HOME": str(tmp_path / "data"), "ACCELSERVE_STORE": ""}
    with serving("--store", "--model=m", OFTEN, log=tmp_path / "log", environ=environ) as server:
        assert predict(server) == [[1.0, 3.0]]


def test_without_polling_a_store_is_served_as_it_was_at_the_start(tmp_path, store):
    register(store, "m")
    with serving(f"--store={store.root}", "--poll-interval=0", log=tmp_path / "log") as server:
        register(store, "m", "double")
        register(store, "n")
        assert predict(server) == [[1.0, 3.0]]
        assert ask(server, "/v1/models").json["models"][0]["name"] == "m"
        assert states(server) == {1: "AVAILABLE"}
    assert run_to_end([f"--store={tmp_path / 'nothing'}", "--poll-interval=0"], tmp_path / "empty") == 4

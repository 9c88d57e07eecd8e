"""A model on the emulated FPGA, served: labelled wherever an answer is told of, one row at a time, in one process."""

import signal
from collections.abc import Iterator

import numpy as np
import pytest
from server_process import Server, run_to_end, serving
from talk import Calls, Scrape, ask, instances, outputs_of

from model_builders import onnx_mlp, onnx_recurrent

ON_THE_EMULATOR = ("--device", "fpga-emulator", "--threads", "1")
LABEL = "fpga-emulator:0; emulated"
ROWS = np.random.default_rng(3).normal(size=(3, 16)).astype(np.float32)
PREDICT = "/v1/models/m:predict"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model; cache and leases of the servers are in it, so that they meet."""
    folder = tmp_path_factory.mktemp("emulator")
    onnx_mlp(folder / "m.onnx", features=16)
    return folder


def arguments(place, name="m"):
    return (f"--model=m={place / f'{name}.onnx'}", *ON_THE_EMULATOR)


@pytest.fixture(scope="module")
def server(place) -> Iterator[Server]:
    with serving(*arguments(place), log=place / "log", environ={"XDG_CACHE_HOME": str(place)}) as found:
        yield found


def test_every_http_answer_is_labelled_and_tells_the_modelled_time(server):
    answer = ask(server, PREDICT, instances(*ROWS.tolist()[:1]))
    assert answer.status == 200
    assert answer.headers["x-accelserve-device"] == LABEL
    assert int(answer.headers["x-accelserve-modelled-device-us"]) > 0


def test_every_grpc_answer_is_labelled_in_its_trailing_metadata(server):
    with Calls(server) as calls:
        call = calls.start("m", {"images": ROWS[:1]})
        assert set(outputs_of(call.result())) == {"scores"}
        trailing = dict(call.trailing_metadata())
    assert trailing["x-accelserve-device"] == LABEL
    assert int(trailing["x-accelserve-modelled-device-us"]) > 0


def test_a_request_of_more_rows_is_split_into_what_the_card_takes(server):
    labels = {"device": "fpga-emulator:0", "model": "m"}
    before = Scrape(server).sum("accelserve_batches_total", **labels)
    together = ask(server, PREDICT, instances(*ROWS.tolist())).json["predictions"]
    assert Scrape(server).sum("accelserve_batches_total", **labels) == before + len(ROWS)
    alone = [ask(server, PREDICT, instances(row)).json["predictions"][0] for row in ROWS.tolist()]
    assert together == alone


def test_metrics_and_readiness_say_emulated_and_in_which_numbers(server):
    ask(server, PREDICT, instances(*ROWS.tolist()[:1]))
    page = Scrape(server)
    assert page.sum("accelserve_device_info", emulated="true", device="fpga-emulator:0", model="m") == 1
    assert page.sum("accelserve_modelled_device_seconds_count", model="m") > 0
    (version,) = ask(server, "/readyz/m").json["versions"]
    assert (version["emulated"], version["numerics"]) == (True, "bfp(m=3,e=8,b=16)")
    assert "(fpga_emulator, emulated)" in server.log.read_text()


def test_the_answer_is_not_that_of_float32(server, place):
    emulated = ask(server, PREDICT, instances(*ROWS.tolist()[:1])).json["predictions"]
    with serving(f"--model=m={place / 'm.onnx'}", log=place / "cpu") as plain:
        answer = ask(plain, PREDICT, instances(*ROWS.tolist()[:1]))
        assert "emulated" not in answer.headers["x-accelserve-device"]  # auto never takes the emulator
        assert "x-accelserve-modelled-device-us" not in answer.headers
    difference = np.abs(np.subtract(emulated, answer.json["predictions"])).max()
    assert 0 < difference < 0.1


def test_a_second_server_on_the_device_ends_with_5_and_says_who_holds_it(server, place):
    log = place / "second"
    assert run_to_end(arguments(place), log, {"XDG_CACHE_HOME": str(place)}) == 5
    assert f"device fpga-emulator:0 is held by m (process {server.process.pid})" in log.read_text()
    assert ask(server, PREDICT, instances(*ROWS.tolist()[:1])).status == 200


def test_the_device_of_a_killed_server_is_free(place, tmp_path):
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    with serving(*arguments(place), log=tmp_path / "killed", environ=environ) as killed:
        killed.stop(signal.SIGKILL)
        with serving(*arguments(place), log=tmp_path / "next", environ=environ) as found:
            assert ask(found, "/readyz").status == 200


def test_an_operator_that_the_card_lacks_ends_with_3_naming_it(place, tmp_path):
    onnx_recurrent(place / "lstm.onnx", "LSTM")
    log = tmp_path / "log"
    assert run_to_end(arguments(place, "lstm"), log, {"XDG_CACHE_HOME": str(tmp_path)}) == 3
    assert "the FPGA does not take LSTM" in log.read_text()

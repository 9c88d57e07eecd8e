"""Pictures that the device normalises, over real sockets: each answer is the host's, bit for bit, whatever rides along.

The device is the CPU here, asked for it; the model gives back its whole input, so that no bit of it can hide.
"""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import grpc
import numpy as np
import pytest
from grpc_stub import Stub, content, refusal_of, request, spec, strings, tensor
from onnx import TensorProto, helper
from PIL import Image
from plain_http import check_books, check_log, get, post
from server_process import Server, run_to_end, serving
from small_networks import scorer, value, write
from talk import Scrape

from accelserve.codecs.images import decode_picture
from accelserve.codecs.tensor_proto import decode_tensor
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import BY_NAME

HEIGHT, WIDTH = 12, 16
STEPS = Preprocessing(
    (HEIGHT, WIDTH), layout="NCHW", mean=(123.68, 116.779, 103.939), scale=(1 / 58.4, 1 / 57.1, 1 / 57.4)
)
PIXEL_BYTES = HEIGHT * WIDTH * 3
NUMBERS = f"[preprocessing]\nmean = {list(STEPS.mean)}\nscale = {list(STEPS.scale)}\n"
ON_THE_DEVICE = f'{NUMBERS}normalize = "device"\n'
BATCHES = "[batching]\nmax_batch_size = 8\nmax_queue_delay_us = 3000\n"
NARROW = f"[batching]\nmax_queue_bytes = {10 * PIXEL_BYTES}\n"
ON_DEVICE = ("device", "bound")
MODELS = ("host", *ON_DEVICE)
FILES = {
    "host": BATCHES + NUMBERS,
    "device": f"instances = 2\n{BATCHES}{ON_THE_DEVICE}",
    "bound": f"{BATCHES}{ON_THE_DEVICE}[backend]\nio_binding = true\n",
    "narrow-host": NARROW + NUMBERS,
    "narrow-device": NARROW + ON_THE_DEVICE,
}


def flatten(path: Path) -> Path:
    """image float32 ["batch", 3, H, W] -> scores: the same numbers, in one row."""
    return write(
        path,
        [helper.make_node("Flatten", ["image"], ["scores"], axis=1)],
        [value("image", TensorProto.FLOAT, "batch", 3, HEIGHT, WIDTH)],
        [value("scores", TensorProto.FLOAT, "batch", 3 * HEIGHT * WIDTH)],
    )


@dataclass(frozen=True)
class Site:
    server: Server
    stub: Stub


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("models")
    arguments = []
    for name, toml in FILES.items():
        path = flatten(folder / f"{name}.onnx")
        (folder / f"{name}.accelserve.toml").write_text(toml)
        arguments += ["--model", f"{name}={path}"]
    with serving(*arguments, "--device", "cpu", log=folder / "log") as server, Stub(server.grpc) as stub:
        yield Site(server, stub)
        check_books(server)
        check_log(server)


def jpeg(seed: int) -> bytes:
    rough = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(cv2.resize(rough, (40, 30), interpolation=cv2.INTER_CUBIC)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def floats_of(picture: bytes) -> np.ndarray:
    """What the host makes of a picture: [3, H, W]."""
    return decode_picture(picture, STEPS, dtype=BY_NAME["float32"])


def predict(site: Site, model: str, image) -> np.ndarray:
    answer = site.stub.ask(request(model, image=image))
    return decode_tensor(answer.outputs["scores"], "scores")


@pytest.mark.parametrize("model", MODELS)
def test_a_jpeg_by_post_gets_the_answer_of_its_floats(site, model):
    picture = jpeg(1)
    answer = post(site.server, f"/score?model={model}", picture)
    assert answer.status == 200, answer.body
    np.testing.assert_array_equal(np.float32(answer.json), floats_of(picture).ravel())


@pytest.mark.parametrize("model", ON_DEVICE)
def test_the_bytes_of_the_answer_are_those_of_a_host_that_normalises(site, model):
    answers = [post(site.server, f"/score?model={name}", jpeg(2)).body for name in ("host", model)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("model", MODELS)
def test_pictures_by_grpc_get_the_answers_of_their_floats(site, model):
    pictures = [jpeg(seed) for seed in range(3)]
    found = predict(site, model, strings(*pictures))
    np.testing.assert_array_equal(found, [floats_of(picture).ravel() for picture in pictures])


@pytest.mark.parametrize("model", MODELS)
def test_float_tensors_by_grpc_and_json_go_on_working(site, model):
    image = np.random.default_rng(3).normal(size=(2, 3, HEIGHT, WIDTH)).astype(np.float32)
    np.testing.assert_array_equal(predict(site, model, content(image)), image.reshape(2, -1))
    answer = post(site.server, f"/v1/models/{model}:predict", {"instances": image.tolist()})
    np.testing.assert_array_equal(np.float32(answer.json["predictions"]), image.reshape(2, -1))


@pytest.mark.parametrize("model", ON_DEVICE)
def test_answers_and_metadata_name_the_models_own_signature(site, model):
    answer = site.stub.ask(request(model, image=strings(jpeg(4))))
    assert answer.model_spec.signature_name == "serving_default"
    metadata = get(site.server, f"/v1/models/{model}/metadata").json["metadata"]["signature_def"]["signature_def"]
    assert list(metadata) == ["serving_default"]
    assert metadata["serving_default"]["inputs"]["image"]["dtype"] == "DT_FLOAT"


@pytest.mark.parametrize("model", ON_DEVICE)
def test_the_signature_of_pixels_cannot_be_asked_for(site, model):
    hidden = "serving_default of pixels"
    pixels = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    refusal = refusal_of(site.stub.ask, request(spec(model, signature=hidden), image=content(pixels)))
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert "The model has: serving_default" in refusal.text
    asked = {"signature_name": hidden, "instances": pixels.tolist()}
    assert post(site.server, f"/v1/models/{model}:predict", asked).status == 400


@pytest.mark.parametrize("model", ON_DEVICE)
def test_pixels_sent_as_a_tensor_are_refused_as_ever(site, model):
    pixels = tensor("UINT8", 1, HEIGHT, WIDTH, 3, tensor_content=bytes(PIXEL_BYTES))
    refusal = refusal_of(site.stub.ask, request(model, image=pixels))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "want float32[-1,3,12,16], got uint8[1,12,16,3]" in refusal.text


@pytest.mark.parametrize("model", ON_DEVICE)
def test_a_broken_picture_is_refused_alone(site, model):
    assert post(site.server, f"/score?model={model}", jpeg(5)[:200]).status == 422
    assert refusal_of(site.stub.ask, request(model, image=strings(jpeg(5), b"no picture"))).code is (
        grpc.StatusCode.INVALID_ARGUMENT
    )


def test_ten_pictures_have_room_as_pixels_and_two_as_floats(site):
    ten, eleven = (strings(*[jpeg(6)] * count) for count in (10, 11))
    assert predict(site, "narrow-device", ten).shape == (10, 3 * HEIGHT * WIDTH)
    refusal = refusal_of(site.stub.ask, request("narrow-device", image=eleven))
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert predict(site, "narrow-host", strings(jpeg(6), jpeg(6))).shape == (2, 3 * HEIGHT * WIDTH)
    refusal = refusal_of(site.stub.ask, request("narrow-host", image=strings(*[jpeg(6)] * 3)))
    assert f"3 pictures become {3 * 4 * PIXEL_BYTES} bytes" in refusal.text


@pytest.mark.parametrize("model", ON_DEVICE)
def test_jpegs_strings_and_floats_at_once_get_the_answers_they_would_get_alone(site, model):
    pictures = {seed: jpeg(seed) for seed in range(8)}
    before = Scrape(site.server).sum("accelserve_batch_rows_count", model=model)

    def ask(number: int) -> None:
        picture = pictures[number % 8]
        floats = floats_of(picture)
        if number % 3 == 0:
            answer = post(site.server, f"/score?model={model}", picture)
            found = np.float32(answer.json)[None] if answer.status == 200 else answer.body
        elif number % 3 == 1:
            found = predict(site, model, strings(picture))
        else:
            found = predict(site, model, content(floats[None]))
        np.testing.assert_array_equal(found, floats.reshape(1, -1), str(number))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(240)))
    batches = Scrape(site.server).sum("accelserve_batch_rows_count", model=model) - before
    assert batches < 240


def test_the_log_says_where_each_model_normalises(site):
    log = site.server.log.read_text()
    for model, place in (("host", "host"), ("device", "device"), ("bound", "device")):
        line = next(line for line in log.splitlines() if f"{model}:1 is AVAILABLE" in line)
        assert f"pictures normalised on the {place}" in line


def test_a_device_that_cannot_normalise_ends_the_server_with_the_reason(tmp_path):
    path = scorer(tmp_path / "m.onnx", TensorProto.FLOAT, HEIGHT, WIDTH, 3)
    toml = '[preprocessing]\nresize = "letterbox"\nnormalize = "device"\n'
    (tmp_path / "m.accelserve.toml").write_text(toml)
    assert run_to_end(["--model", f"m={path}"], tmp_path / "log") == 3
    assert "letterbox" in (tmp_path / "log").read_text()

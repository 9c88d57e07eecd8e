"""POST /score over real sockets: every form of body on every form of model, against ONNX Runtime run directly."""

import base64
import gzip
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import TensorProto
from PIL import Image, ImageOps
from plain_http import ask, check_books, check_log, exchange, head_of, parse_answers, post
from server_process import Server, serving
from small_networks import identity, run_directly, scorer, sum_and_difference, twice

import model_builders
from accelserve.builtin import digits_path, pictures

HEIGHT, WIDTH = 16, 24
MEAN, SCALE = (10.0, 20.0, 30.0), (0.01, 0.02, 0.03)
LABELS = ("ash", "birch", "cedar", "dogwood", "elm")
PLANES_TOML = f"""
labels = "labels.txt"
[preprocessing]
channel_order = "BGR"
mean = {list(MEAN)}
scale = {list(SCALE)}
exif = true
"""


@dataclass(frozen=True)
class Site:
    server: Server
    folder: Path

    def score(self, model: str, body: bytes | object, query: str = "", **headers: str):
        return post(self.server, f"/score?model={model}{query}", body, **headers)

    def direct(self, model: str, **inputs) -> np.ndarray:
        return run_directly(self.folder / f"{model}.onnx", **inputs)[0]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("models")
    models = {
        "photo": scorer(folder / "photo.onnx", TensorProto.UINT8, HEIGHT, WIDTH, 3),
        "planes": scorer(folder / "planes.onnx", TensorProto.FLOAT, 3, HEIGHT, WIDTH, seed=1),
        "grey": scorer(folder / "grey.onnx", TensorProto.FLOAT, HEIGHT, WIDTH, 1, seed=2),
        "dense": scorer(folder / "dense.onnx", TensorProto.FLOAT, 6, seed=3),
        "two": sum_and_difference(folder / "two.onnx"),
        "whole": identity(folder / "whole.onnx", TensorProto.INT32, "batch", 3),
        "fixed": twice(folder / "fixed.onnx", TensorProto.FLOAT, 2, 3),
        "text": identity(folder / "text.onnx", TensorProto.STRING, "batch"),
        "digits": digits_path(),
    }
    (folder / "planes.accelserve.toml").write_text(PLANES_TOML)
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    arguments = [part for name, path in models.items() for part in ("--model", f"{name}={path}")]
    with serving(*arguments, log=folder / "log") as server:
        yield Site(server, folder)
        check_books(server)
        check_log(server)


@pytest.fixture(scope="module")
def strings(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("strings")
    path = model_builders.saved_model_jpeg(folder / "jpeg" / "1")
    with serving("--model", f"jpeg={path.parent}", log=folder / "log") as server:
        yield server
        check_books(server)
        check_log(server)


def pixels(height: int = HEIGHT, width: int = WIDTH, seed: int = 5) -> np.ndarray:
    """A picture with some structure, so that a JPEG of it is near it; RGB."""
    rough = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def as_rgb(data: bytes) -> np.ndarray:
    """What Pillow, which is not what the server uses, sees in an encoded picture."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def same(answer, expected, tolerance: float = 1e-4) -> None:
    assert answer.status == 200, answer.body
    np.testing.assert_allclose(np.array(answer.json), expected, rtol=tolerance, atol=tolerance)


RGB = Image.fromarray(pixels())
CLEAR = Image.fromarray(np.dstack([pixels(), np.full((HEIGHT, WIDTH), 255, np.uint8)]), "RGBA")
PICTURE_FORMS = {
    "jpeg": encoded(RGB, "JPEG", quality=95, subsampling=0),
    "jpeg_with_halved_colour": encoded(RGB, "JPEG", quality=95, subsampling=2),
    "progressive_jpeg": encoded(RGB, "JPEG", quality=95, subsampling=0, progressive=True),
    "grey_jpeg": encoded(RGB.convert("L"), "JPEG", quality=95),
    "png": encoded(RGB, "PNG"),
    "grey_png": encoded(RGB.convert("L"), "PNG"),
    "palette_png": encoded(RGB.quantize(32), "PNG"),
    "alpha_png": encoded(CLEAR, "PNG"),
    "black_and_white_png": encoded(RGB.convert("1"), "PNG"),
}


@pytest.mark.parametrize("form", PICTURE_FORMS)
def test_a_picture_scores_as_its_pixels_do_in_onnx_runtime(site, form):
    data = PICTURE_FORMS[form]
    same(site.score("photo", data), site.direct("photo", image=as_rgb(data)[None])[0])


def test_a_cmyk_jpeg_is_nearly_the_picture_that_it_was_made_from(site):
    data = encoded(RGB.convert("CMYK"), "JPEG", quality=98, subsampling=0)
    near = site.direct("photo", image=pixels()[None])[0]
    far = site.direct("photo", image=255 - pixels()[None])[0]
    got = np.array(site.score("photo", data).json)
    assert np.abs(got - near).max() < 0.1 * np.abs(far - near).max()


def test_a_larger_picture_is_stretched_to_the_models_size(site):
    large = pixels(HEIGHT + 9, WIDTH + 7)
    expected = site.direct("photo", image=cv2.resize(large, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)[None])[0]
    same(site.score("photo", encoded(Image.fromarray(large), "PNG")), expected)


def normalised(rgb: np.ndarray) -> np.ndarray:
    bgr = rgb[..., ::-1].astype(np.float32)
    return ((bgr - np.float32(MEAN)) * np.float32(SCALE)).transpose(2, 0, 1)[None]


def test_mean_scale_channel_order_and_layout_come_from_the_models_own_file(site):
    data = PICTURE_FORMS["png"]
    same(site.score("planes", data), site.direct("planes", image=normalised(as_rgb(data)))[0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_says_where_the_model_asks_for_it(site, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = Image.fromarray(pixels(WIDTH, HEIGHT)) if orientation >= 5 else RGB
    data = encoded(turned, "JPEG", quality=95, subsampling=0, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    same(site.score("planes", data), site.direct("planes", image=normalised(upright))[0])
    if orientation < 5:
        same(site.score("photo", data), site.direct("photo", image=as_rgb(data)[None])[0])


def test_a_grey_float_input_without_a_file_gets_the_grey_picture_divided_by_255(site):
    data = PICTURE_FORMS["grey_png"]
    grey = np.asarray(Image.open(io.BytesIO(data)))[None, ..., None].astype(np.float32) / np.float32(255)
    same(site.score("grey", data), site.direct("grey", image=grey)[0])


ROWS = np.arange(12, dtype=np.float32).reshape(2, 6) / 7


@pytest.mark.parametrize("array", [ROWS, np.asfortranarray(ROWS), ROWS.astype(">f4"), ROWS[:0]])
def test_an_npy_file_is_the_tensor(site, array):
    same(site.score("dense", npy(array)), site.direct("dense", image=np.ascontiguousarray(array, "=f4")).tolist())


def test_an_npy_file_without_the_batch_axis_is_one_row_and_gets_one_row_back(site):
    same(site.score("dense", npy(ROWS[1])), site.direct("dense", image=ROWS[1:])[0])


def test_pixels_of_a_picture_can_come_as_npy_or_bare_bytes(site):
    expected = site.direct("photo", image=pixels()[None])
    same(site.score("photo", npy(pixels())), expected[0])
    same(site.score("photo", npy(pixels()[None])), expected)
    same(site.score("photo", pixels().tobytes(), content_type="application/octet-stream"), expected)


@pytest.mark.parametrize("content_type", ["application/octet-stream", "text/plain", "image/jpeg", ""])
def test_bare_little_endian_bytes_are_the_rows_of_a_dense_model_whatever_they_are_called(site, content_type):
    answer = site.score("dense", ROWS.tobytes(), content_type=content_type)
    same(answer, site.direct("dense", image=ROWS))


def test_octets_that_look_like_json_or_npy_are_told_apart_by_the_content_type_and_the_magic(site):
    looks_like_json = b"[123" + ROWS.tobytes()[4:]
    row = np.frombuffer(looks_like_json, "<f4").reshape(2, 6)
    same(site.score("dense", looks_like_json, content_type="application/octet-stream"), site.direct("dense", image=row))
    assert "JSON" in site.score("dense", looks_like_json).error
    same(site.score("dense", npy(ROWS), content_type="application/octet-stream"), site.direct("dense", image=ROWS))


@pytest.mark.parametrize(
    "document",
    [
        {"instances": ROWS.tolist()},
        {"inputs": ROWS.tolist()},
        {"inputs": {"image": ROWS.tolist()}},
        {"instances": [{"image": row} for row in ROWS.tolist()]},
        {"data": ROWS.tolist()},
        {"data": {"image": ROWS.tolist()}},
        ROWS.tolist(),
        [{"image": row} for row in ROWS.tolist()],
        {"instances": ROWS.tolist(), "signature_name": "serving_default", "something": {"else": []}},
    ],
)
def test_json_in_all_its_forms_is_the_same_tensor(site, document):
    same(site.score("dense", document, content_type="image/jpeg"), site.direct("dense", image=ROWS))


@pytest.mark.parametrize("before", [b" \r\n\t", b"\xef\xbb\xbf", b"\xef\xbb\xbf "])
def test_json_may_have_space_or_a_byte_order_mark_before_it(site, before):
    same(site.score("dense", before + json.dumps(ROWS.tolist()).encode()), site.direct("dense", image=ROWS))


def test_two_inputs_and_two_outputs_go_by_name(site):
    a, b = [[1.0, 2.0]], [[0.5, 0.25]]
    wanted = {"sum": [[1.5, 2.25]], "difference": [[0.5, 1.75]]}
    for document in (
        {"inputs": {"a": a, "b": b}},
        {"data": {"a": a, "b": b}},
        {"instances": [{"a": a[0], "b": b[0]}]},
        [{"b": b[0], "a": a[0]}],
    ):
        assert site.score("two", document).json == wanted


@pytest.mark.parametrize("form", ["jpeg", "png"])
def test_a_picture_for_a_model_of_two_inputs_is_415_and_says_what_the_model_takes(site, form):
    answer = site.score("two", PICTURE_FORMS[form])
    assert answer.status == 415, answer.body
    assert all(word in answer.error for word in ('"a"', '"b"', "JSON"))


def test_an_npy_file_for_a_model_of_two_inputs_is_415(site):
    answer = site.score("two", npy(ROWS))
    assert answer.status == 415, answer.body
    assert "JSON" in answer.error


def test_a_model_without_a_batch_axis_takes_its_one_tensor(site):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for body in (npy(x), x.tobytes(), {"inputs": x.tolist()}, {"instances": x.tolist()}):
        same(site.score("fixed", body), 2 * x)
    assert site.score("fixed", npy(x[None])).status == 400
    assert site.score("fixed", x.tobytes() * 2).status == 400


def test_a_string_model_gets_the_text_unread(site):
    for text in ("hello", "GIF89a", "gr\u00fc\u00df dich", "{", " "):
        answer = site.score("text", text.encode() if text != "{" else {"instances": ["{"]})
        assert answer.status == 200, answer.body
        assert answer.json == (text if text != "{" else [text])


def test_bytes_that_are_no_text_are_400_for_an_onnx_string_model(site):
    answer = site.score("text", b"\xff\xd8\xff")
    assert answer.status == 400
    assert "UTF-8" in answer.error


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip"])
def test_a_gzip_body_is_unpacked(site, coding):
    data = gzip.compress(PICTURE_FORMS["png"])
    same(site.score("photo", data, content_encoding=coding), site.direct("photo", image=pixels()[None])[0])


@pytest.mark.parametrize("broken", [b"", b"\x1f\x8b", gzip.compress(b"x" * 99, mtime=0)[:-9], b"not gzip at all"])
def test_a_broken_gzip_body_is_400(site, broken):
    answer = site.score("photo", broken, content_encoding="gzip")
    assert answer.status == 400
    assert "gzip" in answer.error


def form(*parts: tuple[str, bytes]) -> tuple[bytes, str]:
    """parts: (the rest of Content-Disposition, content)."""
    lines = [
        f"--cut\r\nContent-Disposition: form-data; {name}\r\n\r\n".encode() + data + b"\r\n" for name, data in parts
    ]
    return b"".join([*lines, b"--cut--\r\n"]), "multipart/form-data; boundary=cut"


def test_the_one_file_of_a_form_is_the_body(site):
    data, content_type = form(('name="note"', b"a field"), ('name="f"; filename="a.png"', PICTURE_FORMS["png"]))
    same(site.score("photo", data, content_type=content_type), site.direct("photo", image=pixels()[None])[0])


def test_a_form_with_two_files_or_none_is_400(site):
    picture = PICTURE_FORMS["png"]
    for parts in (
        [('name="a"; filename="a.png"', picture), ('name="b"; filename="b.png"', picture)],
        [('name="note"', b"only a field")],
    ):
        data, content_type = form(*parts)
        answer = site.score("photo", data, content_type=content_type)
        assert answer.status == 400
        assert "one file" in answer.error


def test_a_broken_form_is_400(site):
    data, content_type = form(('name="f"; filename="a.png"', PICTURE_FORMS["png"]))
    assert site.score("photo", data[:-12], content_type=content_type).status == 400
    assert site.score("photo", data, content_type="multipart/form-data").status == 400


@pytest.mark.parametrize("content_type", ["application/json", "text/html", "image/png", "nonsense", ""])
def test_a_wrong_content_type_with_the_right_bytes_is_scored(site, content_type):
    data = PICTURE_FORMS["jpeg"]
    same(site.score("photo", data, content_type=content_type), site.direct("photo", image=as_rgb(data)[None])[0])


def test_top_k_ranks_the_scores_and_names_them_where_the_model_has_labels(site):
    scores = site.direct("planes", image=normalised(pixels()))[0]
    order = np.argsort(-scores, kind="stable")
    for k in (1, 3, 5, 999999):
        best = site.score("planes", PICTURE_FORMS["png"], f"&top={k}").json
        assert [entry["index"] for entry in best] == order[:k].tolist()
        np.testing.assert_allclose([entry["score"] for entry in best], scores[order[:k]], rtol=1e-4)
        for entry in best:
            assert entry["label"] == LABELS[entry["index"]]


def test_top_k_of_a_model_without_labels_has_none_and_of_several_rows_is_a_list_of_lists(site):
    best = site.score("dense", ROWS.tolist(), "&top=2").json
    assert [len(row) for row in best] == [2, 2]
    assert all(entry.keys() == {"index", "score"} for row in best for entry in row)


def test_top_k_of_what_is_no_score_vector_is_400_and_says_what_there_is(site):
    assert "whole" not in site.score("whole", {"instances": [[1, 2, 3]]}, "&top=1").error
    assert '"y" int32[1,3]' in site.score("whole", {"instances": [[1, 2, 3]]}, "&top=1").error
    message = site.score("two", {"inputs": {"a": [[1.0, 2.0]], "b": [[1.0, 2.0]]}}, "&top=1").error
    assert '"sum"' in message
    assert '"difference"' in message


@pytest.mark.parametrize("top", ["0", "-1", "x", "", "1.5", "9999999", "%D9%A3"])
def test_a_top_that_is_no_whole_number_above_0_is_400(site, top):
    answer = site.score("planes", PICTURE_FORMS["png"], f"&top={top}")
    assert answer.status == 400
    assert answer.error.startswith("top: want a whole number above 0")


def test_the_builtin_digits_are_read_by_the_service_path_too(site):
    for path, digit in pictures():
        (best,) = post(site.server, "/api/v1/service/digits/score?top=1", path.read_bytes()).json
        assert best["index"] == digit


def test_the_path_wins_over_the_query(site):
    data = pictures()[3][0].read_bytes()
    assert len(post(site.server, "/api/v1/service/digits/score?model=photo", data).json) == 10


def test_without_a_model_the_400_names_those_that_there_are(site):
    answer = post(site.server, "/score", PICTURE_FORMS["png"])
    assert answer.status == 400
    assert "dense, digits, fixed, grey, photo, planes, text, two, whole" in answer.error


@pytest.mark.parametrize("path", ["/score?model=nobody", "/api/v1/service/nobody/score", "/api/v1/service/no%00/score"])
def test_an_unknown_model_is_404(site, path):
    answer = post(site.server, path, PICTURE_FORMS["png"])
    assert answer.status == 404
    assert "Servable not found for request: Latest(no" in answer.error


def test_a_newline_after_the_service_path_does_not_turn_it_into_another_model(site):
    answer = post(site.server, "/api/v1/service/digits/score%0A", PICTURE_FORMS["png"])
    assert answer.status == 404 or answer.headers["x-accelserve-model"] == "digits:1"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
@pytest.mark.parametrize("path", ["/score", "/api/v1/service/digits/score"])
def test_every_other_verb_is_405_with_allow_post(site, method, path):
    answer = ask(site.server, method, path)
    assert answer.status == 405
    assert answer.headers["allow"] == "POST"
    if method == "HEAD":
        assert answer.body == b""
    else:
        assert method in answer.error


@pytest.mark.parametrize("path", ["/score/", "/nothing", "/", "/api/v1/service/digits", "/SCORE"])
def test_a_path_that_is_not_there_is_404_in_json(site, path):
    answer = post(site.server, path, PICTURE_FORMS["png"])
    assert answer.status == 404
    assert "no such path" in answer.error


@pytest.mark.parametrize("model", ["photo", "dense", "two", "text", "fixed"])
def test_an_empty_body_is_400_and_says_what_is_wanted(site, model):
    answer = site.score(model, b"")
    assert answer.status == 400
    assert "the body is empty" in answer.error
    assert model in answer.error


WRONG_BODIES = [
    ("photo", b"GIF89a and more", 415, "GIF"),
    ("photo", b"just words", 415, "JPEG or PNG"),
    ("photo", gzip.compress(b"packed", mtime=0), 415, "gzip"),
    ("photo", b"\xff\xd8 not a JPEG", 422, "cannot be decoded"),
    ("photo", PICTURE_FORMS["png"][:-20], 422, "cannot be decoded"),
    ("photo", b'{"instances": [', 400, "JSON Parse error"),
    ("photo", b"\x93NUMPY\x01\x00", 400, "npy"),
    ("dense", PICTURE_FORMS["jpeg"], 415, "JPEG"),
    ("dense", PICTURE_FORMS["png"], 415, "PNG"),
    ("dense", b"12345", 400, "want a multiple of 24 bytes"),
    ("dense", npy(ROWS.astype(np.float64)), 400, "want float32[-1,6], got float64[2,6]"),
    ("dense", npy(ROWS[:, :5]), 400, "want float32[-1,6], got float32[2,5]"),
    ("dense", npy(np.array(["x"])), 400, "npy"),
    ("dense", b"{}", 400, "'instances', 'inputs' and 'data'"),
    ("dense", b'{"instances": [[1]], "data": [[1]]}', 400, "instances and data"),
    ("dense", b"[]", 400, "No values"),
    ("dense", b'[["a"]]', 400, "not of expected type: float"),
    ("dense", b"[[null, 1, 1, 1, 1, 1]]", 400, "Null"),
    ("dense", b"[[1, 2], [3]]", 400, "instances"),
    ("dense", b"[[1, 2, 3]]", 400, "want float32[-1,6], got float32[1,3]"),
    ("whole", b"[[1.0, 2, 3]]", 400, "not of expected type: int32"),
    ("two", b"[[1.0]]", 400, "expecting list of objects"),
    ("two", b'{"inputs": {"a": [[1, 2]]}}', 400, "Missing named input: b"),
    ("two", b"nonsense", 400, "JSON Parse error"),
]


@pytest.mark.parametrize(("model", "body", "status", "words"), WRONG_BODIES)
def test_a_body_that_does_not_fit_gets_the_right_code_and_says_why(site, model, body, status, words):
    answer = site.score(model, body)
    assert answer.status == status, answer.body
    assert words in answer.error


def test_request_ids_are_made_where_none_is_sent(site):
    first, second = (site.score("dense", ROWS.tolist()).headers for _ in range(2))
    assert re.fullmatch("[0-9a-f]{32}", first["x-request-id"])
    assert first["x-ms-request-id"] == first["x-request-id"] != second["x-request-id"]
    assert "x-ms-client-request-id" not in first


@pytest.mark.parametrize("body", [ROWS.tolist(), b"[["])
def test_request_ids_come_back_on_answers_and_errors(site, body):
    sent = {"x-request-id": "mine-1", "x-ms-request-id": "front/2", "x-ms-client-request-id": "urn:3"}
    answer = site.score("dense", body, **sent)
    assert {name: answer.headers[name] for name in sent} == sent


@pytest.mark.parametrize("dirty", ["x" * 129, "two words", "caf\xe9", "tab\tbed"])
def test_an_id_that_is_not_fit_for_logs_is_replaced(site, dirty):
    answer = site.score("dense", ROWS.tolist(), x_request_id=dirty, x_ms_client_request_id=dirty)
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert "x-ms-client-request-id" not in answer.headers


def test_an_answer_says_who_computed_it_and_where_the_time_went(site):
    headers = site.score("photo", PICTURE_FORMS["png"]).headers
    assert headers["content-type"] == "application/json"
    assert headers["x-accelserve-model"] == "photo:1"
    assert headers["x-accelserve-device"] == "cpu:0"
    timing = re.fullmatch(
        r"queue=(\d+)us, decode=(\d+)us, compute=(\d+)us, batch=(\d+), position=\d+, closed=\w+",
        headers["x-accelserve-timing"],
    )
    assert timing
    assert int(timing[2]) > 0
    assert int(timing[3]) > 0
    assert timing[4] == "1"


def test_an_error_says_its_reason_in_a_header(site):
    assert site.score("photo", b"\xff\xd8 not a JPEG").headers["x-accelserve-reason"] == "undecodable"
    assert site.score("dense", npy(ROWS[:, :5])).headers["x-accelserve-reason"] == "wrong_shape"


@pytest.mark.parametrize("timeout", ["0", "-1", "1.5", "soon", "", "1e3", "99999999999999999999", "86400001", "\xb2"])
def test_a_timeout_that_is_no_number_of_milliseconds_is_400(site, timeout):
    answer = site.score("dense", ROWS.tolist(), x_accelserve_timeout_ms=timeout)
    assert answer.status == 400
    assert "x-accelserve-timeout-ms" in answer.error


@pytest.mark.parametrize("timeout", ["5000", "86400000", " 7000 "])
def test_a_good_timeout_is_taken(site, timeout):
    assert site.score("dense", ROWS.tolist(), x_accelserve_timeout_ms=timeout).status == 200


@pytest.mark.parametrize("priority", ["high", "Normal", "LOW"])
def test_a_priority_is_taken_in_any_case(site, priority):
    assert site.score("dense", ROWS.tolist(), x_accelserve_priority=priority).status == 200


@pytest.mark.parametrize("path", ["/score?model=planes", "/v1/models/planes:predict"])
def test_pictures_in_base64_are_decoded_for_a_model_of_pixels(site, path):
    picture = PICTURE_FORMS["png"]
    coded = {"b64": base64.b64encode(picture).decode()}
    wanted = site.score("planes", picture).json
    for body in ({"instances": [coded, coded]}, {"instances": [{"image": coded}] * 2}, {"inputs": [coded, coded]}):
        found = post(site.server, path, body).json
        found = found if isinstance(found, list) else found.get("predictions", found.get("outputs"))
        np.testing.assert_allclose(found, [wanted, wanted], rtol=1e-4)
    broken = {"b64": base64.b64encode(picture[:40]).decode()}
    assert post(site.server, path, {"instances": [coded, broken]}).status == 422
    assert post(site.server, path, {"instances": [{"b64": "?"}]}).status == 400
    assert post(site.server, path, {"instances": [coded, 1]}).status == 400
    assert post(site.server, path, {"instances": [[coded]]}).status == 400
    assert post(site.server, path.replace("planes", "dense"), {"instances": [coded]}).status == 400


@pytest.mark.parametrize("priority", ["urgent", "", "1", "high,low"])
def test_an_unknown_priority_is_400(site, priority):
    answer = site.score("dense", ROWS.tolist(), x_accelserve_priority=priority)
    assert answer.status == 400
    assert "want high, normal or low" in answer.error


def test_requests_in_one_write_are_answered_in_order(site):
    body = json.dumps(ROWS.tolist()).encode()
    good = head_of("POST", "/score?model=dense", f"Content-Length: {len(body)}") + body
    bad = head_of("POST", "/score?model=nobody", "Content-Length: 2") + b"[]"
    last = head_of("POST", "/score?model=dense", f"Content-Length: {len(body)}", "Connection: close") + body
    answers = parse_answers(exchange(site.server, good + bad + good + last))
    assert [answer.status for answer in answers] == [200, 404, 200, 200]
    assert answers[0].body == answers[2].body == answers[3].body


@pytest.mark.tensorflow
def test_a_model_that_decodes_in_its_graph_gets_the_jpeg_unread(strings):
    scores = post(strings, "/score", model_builders.jpeg((200, 100, 50))).json
    np.testing.assert_allclose(scores, np.array([200, 100, 50]) / 255, atol=0.02)


@pytest.mark.tensorflow
def test_a_model_that_decodes_in_its_graph_takes_json_with_b64(strings):
    pictures = [{"b64": base64.b64encode(model_builders.jpeg((c, 0, 0))).decode()} for c in (255, 0)]
    scores = post(strings, "/score", {"instances": pictures}).json
    np.testing.assert_allclose(scores, [[1, 0, 0], [0, 0, 0]], atol=0.02)


@pytest.mark.tensorflow
def test_what_only_the_graph_finds_undecodable_is_422(strings):
    answer = post(strings, "/score", model_builders.jpeg()[:200])
    assert answer.status == 422, answer.body
    assert answer.error
    assert post(strings, "/score", b"no picture").status == 422


@pytest.mark.tensorflow
def test_top_k_works_on_a_model_that_decodes_in_its_graph(strings):
    assert post(strings, "/score?top=1", model_builders.jpeg((10, 10, 250))).json[0]["index"] == 2

"""A JPEG scored by OpenVINO on the CPU: where the model's own file asks for it, or nothing else takes the model."""

import json
from pathlib import Path

import numpy as np
from converted_models import converted, expected
from plain_http import get, post
from server_process import serving

from model_builders import jpeg, onnx_image


def test_a_jpeg_is_scored_by_the_back_end_that_the_model_names(tmp_path):
    for name in ("theirs", "ours"):
        onnx_image(tmp_path / f"{name}.onnx", 24, 32)
    (tmp_path / "theirs.accelserve.toml").write_text('runtime = "openvino"\n[backend]\nperformance_hint = "latency"\n')
    models = [f"--model={name}={tmp_path / name}.onnx" for name in ("theirs", "ours")]
    home = tmp_path / "home"
    home.mkdir()
    environ = {"HOME": str(home), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with serving(*models, "--device=cpu", log=tmp_path / "log", environ=environ) as server:
        scores = {name: json.loads(post(server, f"/score?model={name}", jpeg()).body) for name in ("theirs", "ours")}
        ready = {name: json.loads(get(server, f"/readyz/{name}").body) for name in ("theirs", "ours")}
    np.testing.assert_allclose(scores["theirs"], scores["ours"], rtol=1e-5)
    np.testing.assert_allclose(scores["theirs"], np.array([200, 100, 50]) / 255, atol=0.02)
    told = {name: (each["versions"][0]["backend"], each["versions"][0]["numerics"]) for name, each in ready.items()}
    assert told == {"theirs": ("openvino", "fp32"), "ours": ("onnx_runtime", "fp32")}
    assert not list(Path(home).iterdir()), "something was written to the user's home"


def test_a_model_made_for_an_fpga_answers_on_the_cpu_in_fp32_when_that_is_asked_for(tmp_path):
    folder = converted(tmp_path / "card" / "1")
    with serving(f"--model=card={tmp_path / 'card'}", "--device=cpu", log=tmp_path / "log") as server:
        answer = post(server, "/score", jpeg())
        ready = json.loads(get(server, "/readyz/card").body)
    pixels = np.broadcast_to((np.array([200, 100, 50], np.float32) - 100) * 0.01, (1, 8, 8, 3)).copy()
    np.testing.assert_allclose(json.loads(answer.body), expected(folder, pixels)[0], atol=0.01)
    (version,) = ready["versions"]
    assert (version["backend"], version["numerics"]) == ("openvino", "fp32")
    assert set(version["nodes"]) == {"CPU", "CPU (host's tail)"}

"""What every server is asked: models and request bodies in each form that a server takes, and the right answers."""

import hashlib
import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import models
from benchmarks.peers.cases import CASES
from benchmarks.peers.catalog import BOUNDARY, FORMS, SERVERS

MADE_BY = (Path(__file__), Path(models.__file__), SERVERS / "predict.proto")


def prepare(work: Path) -> None:
    """Write work/models, work/bodies and work/wire, unless they are there already and were made by this code."""
    stamp = work / "bodies" / "made_by"
    asked = repr([(name, case.model, case.kind, case.body) for name, case in CASES.items()])
    made_by = hashlib.sha256(b"".join(path.read_bytes() for path in MADE_BY) + asked.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == made_by:
        return
    print("models and bodies: making", file=sys.stderr, flush=True)
    for folder in ("models", "bodies", "wire"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    for model in dict.fromkeys(case.model for case in CASES.values()):
        models.build(model, work / "models")
    said = _rows()
    for name, rows in said.items():
        _write_forms(work / "bodies" / name, rows)
    for name, picture in _pictures().items():
        said[name] = picture
        _write_pictures(work / "bodies" / name, picture)
    for name, case in CASES.items():
        _write(work / "bodies" / f"{name}.expected.json", json.dumps(_answer(work, case.model, said[case.body])))
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I", str(SERVERS), "--python_out", str(work / "wire"),
         "predict.proto"], check=True,
    )  # fmt: skip
    stamp.write_text(made_by)


def body(work: Path, name: str, form: str) -> bytes:
    return (work / "bodies" / (name + FORMS[form][0])).read_bytes()


def expected(work: Path, case: str) -> tuple[float, ...]:
    return tuple(json.loads((work / "bodies" / f"{case}.expected.json").read_text()))


def _rows() -> dict[str, Any]:
    random = np.random.default_rng(0)
    mlp = random.normal(size=(1, 784)).astype(np.float32)
    picture = random.uniform(-1, 1, size=(1, 3, models.SIDE, models.SIDE)).astype(np.float32)
    return {
        "tiny": np.array([models.TINY_ROW], np.float32),
        "mlp": mlp,
        "raw_600k": picture,
        "grpc_1k": random.normal(size=(1, 256)).astype(np.float32),
        "grpc_mlp": mlp,
        "grpc_600k": picture,
    }


def _write_forms(path: Path, rows: NDArray[np.float32]) -> None:
    """Only the forms of a body's kind."""
    case = next(case for case in CASES.values() if case.body == path.name)
    if case.kind == "json":
        _write(path.with_suffix(FORMS["instances"][0]), json.dumps({"instances": rows.tolist()}))
        _write(path.with_suffix(FORMS["v2"][0]), json.dumps(_v2(rows)))
    elif case.kind == "raw":
        path.with_suffix(FORMS["raw"][0]).write_bytes(rows.tobytes())
    else:
        path.with_suffix(FORMS["grpc"][0]).write_bytes(models.predict(case.model, rows))


def _v2(rows: NDArray[np.float32]) -> dict[str, Any]:
    """Open Inference Protocol."""
    tensor = {"name": "x", "shape": list(rows.shape), "datatype": "FP32", "data": rows.ravel().tolist()}
    return {"inputs": [tensor]}


def _pictures() -> dict[str, bytes]:
    """A portrait of about 17 KB, and scikit-learn's landscape of about 175 KB."""
    return {
        "jpeg220": _least("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", 220, 17_000),
        "jpeg1000": _least("sklearn", "datasets/images/china.jpg", 1000, 170_000),
    }


def _least(package: str, path: str, width: int, least_bytes: int) -> bytes:
    """A package's sample picture at the least quality that gives `least_bytes`. The package is not imported."""
    from PIL import Image

    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.submodule_search_locations is not None
    image = Image.open(Path(found.submodule_search_locations[0]) / path).convert("RGB")
    image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    return next(jpeg for quality in range(70, 100) if len(jpeg := _jpeg(image, quality)) >= least_bytes)


def _jpeg(image: Any, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _write_pictures(path: Path, jpeg: bytes) -> None:
    path.with_suffix(FORMS["jpeg"][0]).write_bytes(jpeg)
    for field in ("content", "images"):
        head = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="a.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        )
        form = head.encode() + jpeg + f"\r\n--{BOUNDARY}--\r\n".encode()
        path.with_suffix(FORMS[field][0]).write_bytes(form)


def _answer(work: Path, model: str, said: Any) -> list[float]:
    """The model's own answer to a row, or to a picture that Pillow decoded and resized."""
    import onnxruntime as ort

    session = ort.InferenceSession(work / "models" / f"{model}.onnx", providers=["CPUExecutionProvider"])
    uint8 = session.get_inputs()[0].type == "tensor(uint8)"
    rows = _decoded(said, uint8) if isinstance(said, bytes) else said
    scores: list[float] = session.run(None, {"x": rows})[0][0].tolist()
    return scores


def _decoded(jpeg: bytes, uint8: bool) -> NDArray[Any]:
    from PIL import Image

    size = (models.SIDE, models.SIDE)
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB").resize(size, Image.Resampling.BILINEAR))
    return pixels[None] if uint8 else (pixels.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None]


def _write(path: Path, text: str) -> None:
    path.write_text(text)

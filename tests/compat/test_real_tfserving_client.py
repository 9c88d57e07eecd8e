"""Our bytes in the hands of the real client: tensorflow-serving-api in .venv-compat, one process per question."""

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from accelserve.codecs.tfserving_proto import encode_metadata, encode_predict, encode_status
from accelserve.messages import ScoreResponse, VersionStatus
from accelserve.tensors import BY_NAME, DTYPES, Signature, TensorSpec

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PYTHON = ROOT / ".venv-compat" / "bin" / "python"

pytestmark = [
    pytest.mark.compat,
    pytest.mark.skipif(
        not PYTHON.exists(),
        reason="THE REAL CLIENT WAS NOT ASKED: .venv-compat is absent; `make test` or scripts/compat-env makes it",
    ),
]


def real_client(script, argument):
    command = [str(PYTHON), str(HERE / script), str(argument)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def example(dtype):
    if dtype.is_string:
        return np.array([[b"", b"a\xff"]], object)
    return np.array([[1, 0]], np.int32).astype(dtype.numpy)


OUTPUTS = {dtype.name: example(dtype) for dtype in DTYPES} | {
    "no rows": np.zeros((0, 4), np.float32),
    "a scalar": np.array(2.5, np.float64),
    "large": np.linspace(-1, 1, 150_528, dtype=np.float32).reshape(1, 224, 224, 3),
}
SIGNATURE = Signature(
    "serving_default",
    {"x": TensorSpec("x", BY_NAME["float32"], (-1, 1), "x:0")},
    {"y": TensorSpec("y", BY_NAME["string"], None, "y:0")},
)


@pytest.fixture(scope="module")
def seen():
    """What the real client sees in one answer of each kind."""
    response = ScoreResponse(OUTPUTS, "default", 123, "serving_default", device="cpu:0", emulated=False)
    versions = [VersionStatus(123, "AVAILABLE"), VersionStatus(124, "END", 13, "does not load")]
    with TemporaryDirectory() as folder:
        Path(folder, "predict.bin").write_bytes(encode_predict(response))
        Path(folder, "metadata.bin").write_bytes(encode_metadata("default", 123, {"serving_default": SIGNATURE}))
        Path(folder, "status.bin").write_bytes(encode_status(versions))
        return real_client("read_tfserving_answers.py", folder)


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_real_client_reads_our_output(seen, name):
    told, want = seen["outputs"][name], OUTPUTS[name]

    dtype = BY_NAME[told["dtype"]]
    if dtype.is_string:
        got = np.array([bytes.fromhex(value) for value in told["values"]], object)
    else:
        got = np.frombuffer(bytes.fromhex(told["values"]), dtype.numpy)
    np.testing.assert_array_equal(got.reshape(told["shape"]), want, strict=True)


def test_the_real_client_finds_the_scores_in_float_val(seen):
    assert seen["float_val"] == [1.0, 0.0]


def test_the_real_client_reads_who_answered(seen):
    assert seen["model_spec"] == {"name": "default", "version": "123", "signatureName": "serving_default"}


def test_the_real_client_reads_the_signatures(seen):
    assert seen["signature_def"] == {
        "serving_default": {
            "inputs": {
                "x": {"name": "x:0", "dtype": "DT_FLOAT", "tensorShape": {"dim": [{"size": "-1"}, {"size": "1"}]}}
            },
            "outputs": {"y": {"name": "y:0", "dtype": "DT_STRING", "tensorShape": {"unknownRank": True}}},
            "methodName": "tensorflow/serving/predict",
        }
    }


def test_the_real_client_reads_the_states(seen):
    failed = {"error_code": "INTERNAL", "error_message": "does not load"}
    assert seen["status"] == {
        "model_version_status": [
            {"version": "124", "state": "END", "status": failed},
            {"version": "123", "state": "AVAILABLE", "status": {}},
        ]
    }


def test_our_messages_have_upstreams_numbers_types_and_json_names():
    found = real_client("compare_descriptors.py", ROOT / "server")

    assert found["different"] == []
    assert found["compared"] > 150

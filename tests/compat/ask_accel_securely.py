"""What users of azureml-accel-models do with TLS and keys; run in .venv-compat.

argv: host, port, a JPEG, the primary key, the secondary key. stdout: see answers.py.
"""

import sys
from types import SimpleNamespace

import numpy as np
from answers import tell
from azureml.accel import PredictionClient, _client

SOFTMAX = "classifier/resnet_v1_50/predictions/Softmax:0"
host, port, jpeg, primary, secondary = sys.argv[1:]
waits: list[int] = []
_client.time = SimpleNamespace(sleep=waits.append)  # between five tries it waits for 15 s


def client(key, use_ssl=True):
    return PredictionClient(host, int(port), use_ssl=use_ssl, access_token=key, service_name="dense")


def told(scores):
    return {"shape": list(scores.shape), "scores": scores.ravel().tolist()}


def score_file(key):
    return told(client(key).score_file(jpeg, input_name="Placeholder:0", outputs=SOFTMAX))


def score_arrays(key):
    pixels = np.full((2, 8, 8, 3), 255, np.uint8)
    return told(client(key).score_numpy_arrays({"Placeholder:0": pixels}, SOFTMAX))


tell(
    {
        "file, primary": lambda: score_file(primary),
        "file, secondary": lambda: score_file(secondary),
        "arrays, primary": lambda: score_arrays(primary),
        "wrong key": lambda: score_file("wrong-wrong-wrong-wrong"),
        "no key": lambda: score_file(""),
        "waits": lambda: waits,
    }
)

"""What users of azureml-accel-models do, against a running server; run in .venv-compat.

argv: host, port, a JPEG, a file that is no picture. stdout: see answers.py.
"""

import sys

import numpy as np
from answers import tell
from azureml.accel import PredictionClient

SOFTMAX = "classifier/resnet_v1_50/predictions/Softmax:0"
host, port, jpeg, broken = sys.argv[1:]


def client(service=""):
    return PredictionClient(host, int(port), service_name=service)


def told(scores):
    return {"shape": list(scores.shape), "scores": scores.ravel().tolist()}


def score_file(service="", path=jpeg, **options):
    return told(client(service).score_file(path, **options))


def score_batch(count):
    with open(jpeg, "rb") as file:
        pictures = np.array([file.read()] * count, object)
    return told(client().score_numpy_arrays({"Placeholder:0": pictures}, SOFTMAX))


def score_pixels():
    pixels = np.full((2, 8, 8, 3), 255, np.uint8)
    return told(client("dense").score_numpy_arrays({"Placeholder:0": pixels}, SOFTMAX))


tell(
    {
        "named output": lambda: score_file(input_name="Placeholder:0", outputs=SOFTMAX),
        "default output": lambda: score_file(input_name="Placeholder:0"),
        "names of the signature": lambda: score_file(outputs="output_alias"),
        "service by its name": lambda: score_file("string", input_name="Placeholder:0", outputs=SOFTMAX),
        "dense model": lambda: score_file("dense", input_name="Placeholder:0", outputs=SOFTMAX),
        "pixels": score_pixels,
        "batch": lambda: score_batch(3),
        "wrong input": lambda: score_file(input_name="Placeholder_1:0", outputs=SOFTMAX),
        "no picture": lambda: score_file(path=broken, input_name="Placeholder:0", outputs=SOFTMAX),
        "no picture for a dense model": lambda: score_file("dense", path=broken, input_name="Placeholder:0"),
    }
)

"""What a user of an FPGA service of Azure ML does with it; run in .venv-compat.

argv: host, port, a JPEG, a file that is no picture. stdout: see answers.py.
"""

import sys

import numpy as np
from answers import tell
from azureml.accel import PredictionClient

SOFTMAX = "classifier/resnet_v1_50/predictions/Softmax:0"
host, port, jpeg, broken = sys.argv[1:]


def score(path=jpeg, **options):
    scores = PredictionClient(host, int(port), service_name="").score_file(path, **options)
    return {"shape": list(scores.shape), "scores": scores.ravel().tolist()}


def score_arrays(values, name="Placeholder:0"):
    scores = PredictionClient(host, int(port), service_name="").score_numpy_arrays({name: values}, SOFTMAX)
    return {"shape": list(scores.shape), "scores": scores.ravel().tolist()}


def encoded(*paths):
    return np.array([open(path, "rb").read() for path in paths], object)


tell(
    {
        "by tensor name": lambda: score(input_name="Placeholder:0", outputs=SOFTMAX),
        "default output": lambda: score(input_name="Placeholder:0"),
        "names of the signature": lambda: score(),
        "batch of strings": lambda: score_arrays(encoded(jpeg, jpeg)),
        "batch with a broken one": lambda: score_arrays(encoded(jpeg, broken)),
        "decoded pictures": lambda: score_arrays(np.zeros((2, 224, 224, 3), np.float32)),
        "decoded pictures of another size": lambda: score_arrays(np.zeros((1, 32, 32, 3), np.float32)),
        "wrong input": lambda: score(input_name="Placeholder_1:0", outputs=SOFTMAX),
        "wrong input of numbers": lambda: score_arrays(np.zeros((1, 224, 224, 3), np.float32), "Placeholder_1:0"),
        "no picture": lambda: score(broken, input_name="Placeholder:0", outputs=SOFTMAX),
    }
)

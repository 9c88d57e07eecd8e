"""What a user of an FPGA service of Azure ML does with it; run in .venv-compat.

argv: host, port, a JPEG, a file that is no picture. stdout: see answers.py.
"""

import sys

from answers import tell
from azureml.accel import PredictionClient

SOFTMAX = "classifier/resnet_v1_50/predictions/Softmax:0"
host, port, jpeg, broken = sys.argv[1:]


def score(path=jpeg, **options):
    scores = PredictionClient(host, int(port), service_name="").score_file(path, **options)
    return {"shape": list(scores.shape), "scores": scores.ravel().tolist()}


tell(
    {
        "by tensor name": lambda: score(input_name="Placeholder:0", outputs=SOFTMAX),
        "default output": lambda: score(input_name="Placeholder:0"),
        "names of the signature": lambda: score(),
        "no picture": lambda: score(broken, input_name="Placeholder:0", outputs=SOFTMAX),
    }
)

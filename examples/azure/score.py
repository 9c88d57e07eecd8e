"""An Azure ML entry script: a JPEG by POST, the most likely digit as JSON. It asks the server's own model."""

from azureml.contrib.services.aml_request import rawhttp
from azureml.contrib.services.aml_response import AMLResponse

import accelserve

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def init():
    """Nothing to load: `--serve-model` has the server load the model, once for all scripts' processes."""


@rawhttp
def run(request):
    if request.method != "POST":
        return AMLResponse(f"{request.method} is not supported", 405)
    scores = accelserve.score("digits", {"image": [request.get_data()]})["scores"]
    return AMLResponse({"digit": DIGITS[int(scores[0].argmax())]}, 200, json_str=True)

"""The entry script that both servers run: it reads the body and says its length. `busy` keeps its worker busy."""

import json
import time

from azureml.contrib.services.aml_request import rawhttp
from azureml.contrib.services.aml_response import AMLResponse

BUSY_S = 0.5


def init():
    pass


@rawhttp
def run(request):
    body = request.get_data(False)
    if body == b"busy":
        until = time.perf_counter() + BUSY_S
        while time.perf_counter() < until:
            pass
    return AMLResponse(json.dumps([len(body)]), 200)

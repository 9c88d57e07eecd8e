"""Entry script for azureml-inference-server-http: init() and run(), raw HTTP for JPEG."""

import json

import numpy as np
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

import peer_model as model


def init():
    model.session()


if model.TAKES_JPEG:

    @rawhttp
    def run(request):
        if request.method != "POST":
            return AMLResponse("", 405)
        scores = model.run(model.decode(request.get_data(False))[None])
        return AMLResponse(json.dumps({"predictions": scores.tolist()}), 200)

else:

    def run(data):
        rows = np.asarray(json.loads(data)["instances"], np.float32)
        return {"predictions": model.run(rows).tolist()}

"""What people write first: FastAPI, pydantic, session.run in the handler, no batching.

usage: python -m benchmarks.naive_server MODEL.onnx PORT [THREADS]
"""

import sys

import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Instances(BaseModel):
    instances: list[list[float]]


def application(model: str, threads: int) -> FastAPI:
    """POST /predict answers {"predictions": [...]}."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    app = FastAPI()

    @app.post("/predict")
    def predict(body: Instances) -> dict[str, list[list[float]]]:
        rows = np.array(body.instances, dtype=np.float32)
        return {"predictions": session.run(None, {"x": rows})[0].tolist()}

    return app


if __name__ == "__main__":
    model, port, *threads = sys.argv[1:]
    app = application(model, int(threads[0]) if threads else 1)
    uvicorn.run(app, host="127.0.0.1", port=int(port), access_log=False, log_level="warning")

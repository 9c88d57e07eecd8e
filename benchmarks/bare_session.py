"""A model without a server: the floor for memory, start and speed. Prints one line of JSON for each thing done.

usage: python -m benchmarks.bare_session hold MODEL.onnx              one answer to a row of zeros, then wait
       python -m benchmarks.bare_session answer MODEL.onnx JPEG       the answer to a picture
       python -m benchmarks.bare_session rate MODEL.onnx JPEG SECONDS BATCH[,BATCH...]     images per second
"""

import json
import sys
import time
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

SIDE = 224  # pixels


def open_session(model: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def hold(model: str) -> None:
    """Answer once, say so, stay until standard input ends."""
    session = open_session(model)
    x = session.get_inputs()[0]
    session.run(None, {"x": np.zeros((1, *x.shape[1:]), np.uint8 if x.type == "tensor(uint8)" else np.float32)})
    print("{}", flush=True)
    sys.stdin.read()


def answer(model: str, picture: str) -> None:
    session = open_session(model)
    print(json.dumps(session.run(None, {"x": decoded(picture, session)})[0][0].tolist()))


def rate(model: str, picture: str, seconds: float, batches: list[int]) -> None:
    """A line for each batch size. Decoding is not part of the time."""
    session = open_session(model)
    row = decoded(picture, session)
    for batch in batches:
        rows = np.repeat(row, batch, axis=0)
        session.run(None, {"x": rows})
        began, cpu_began, images = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - began < seconds:
            session.run(None, {"x": rows})
            images += batch
        took, cpu = time.perf_counter() - began, time.process_time() - cpu_began
        print(json.dumps({"batch": batch, "rps": images / took, "cpu_us": cpu / images * 1e6}), flush=True)


def decoded(picture: str, session: ort.InferenceSession) -> NDArray[Any]:
    """uint8 [1, 224, 224, 3], or float32 [1, 3, 224, 224] in -1..1, as the model wants it."""
    import cv2
    import simplejpeg

    with open(picture, "rb") as file:
        pixels: NDArray[np.uint8] = cv2.resize(simplejpeg.decode_jpeg(file.read()), (SIDE, SIDE))[None]
    if session.get_inputs()[0].type == "tensor(uint8)":
        return pixels
    return np.ascontiguousarray((pixels.astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2))


if __name__ == "__main__":
    what, model, *rest = sys.argv[1:]
    if what == "hold":
        hold(model)
    elif what == "answer":
        answer(model, rest[0])
    else:
        rate(model, rest[0], float(rest[1]), [int(batch) for batch in rest[2].split(",")])

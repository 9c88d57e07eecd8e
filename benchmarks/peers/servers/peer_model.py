"""What every peer's server shares: the ONNX model, and how a JPEG becomes its input.

The settings are environment variables, because that is the one channel that reaches the worker
processes of every framework. `benchmarks/beside.py` sets them.
"""

import functools
import io
import os

import numpy as np
import onnxruntime as ort

KIND = os.environ.get("PEERS_INPUT", "json")  # json, jpeg, raw or grpc: what the bodies are
TAKES_JPEG = KIND == "jpeg"
MAX_BATCH = int(os.environ.get("PEERS_MAX_BATCH", "32"))
WAIT_MS = int(os.environ.get("PEERS_WAIT_MS", "2"))
TUNED = os.environ.get("PEERS_TUNED") == "1"
QUIET = os.environ.get("PEERS_QUIET") == "1"
PORT = int(os.environ.get("PORT", "0"))
SIDE = 224  # pixels


@functools.cache
def session() -> ort.InferenceSession:
    """The model, loaded once per worker process and not before it is needed."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("PEERS_THREADS", "1"))
    options.inter_op_num_threads = 1
    return ort.InferenceSession(os.environ["PEERS_MODEL"], options, providers=["CPUExecutionProvider"])


def run(batch: np.ndarray) -> np.ndarray:
    """Answers for `batch`, whose first axis counts the rows."""
    return session().run(None, {"x": batch})[0]


@functools.cache
def row_shape() -> tuple[int, ...]:
    """Shape of one row of the input."""
    return tuple(session().get_inputs()[0].shape[1:])


def score_width() -> int:
    """How many numbers one row's answer has."""
    return session().get_outputs()[0].shape[1]


@functools.cache
def takes_uint8() -> bool:
    """Whether the model itself normalises: uint8 [n, 224, 224, 3] instead of float32 [n, 3, 224, 224]."""
    return session().get_inputs()[0].type == "tensor(uint8)"


def from_bytes(body: bytes) -> np.ndarray:
    """One row of a float32 model's input from its little-endian numbers, without a copy."""
    return np.frombuffer(body, np.float32).reshape(row_shape())


def decode(jpeg: bytes) -> np.ndarray:
    """One row of the model's input from JPEG bytes."""
    return _decode_fast(jpeg) if TUNED else _decode_usual(jpeg)


def to_row(image) -> np.ndarray:
    """One row from a Pillow image, in the way most examples do it."""
    from PIL import Image

    pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.BILINEAR))
    if takes_uint8():
        return pixels
    return (pixels.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)


def _decode_usual(jpeg: bytes) -> np.ndarray:
    from PIL import Image

    return to_row(Image.open(io.BytesIO(jpeg)))


def _decode_fast(jpeg: bytes) -> np.ndarray:
    import cv2
    import simplejpeg

    cv2.setNumThreads(1)
    pixels = cv2.resize(simplejpeg.decode_jpeg(jpeg), (SIDE, SIDE))
    if takes_uint8():
        return pixels
    return cv2.dnn.blobFromImage(pixels, 1 / 127.5, (SIDE, SIDE), (127.5,) * 3, False)[0]

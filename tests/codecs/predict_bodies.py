"""The body of :predict read in two steps, against which reading at once is held."""

from accelserve.codecs.json_numbers import MIN_BYTES, parse_large
from accelserve.codecs.json_text import parse_json
from accelserve.codecs.tfserving_json import PredictBody, read_document


def parse_predict(body: bytes) -> PredictBody:
    """The first step; `bind_predict` is the second."""
    return read_document(parse_json(body) if len(body) < MIN_BYTES else parse_large(body), body)

"""Reads our answers with the real client's classes; run in .venv-compat by test_real_tfserving_client.py.

argv: a folder with predict.bin, metadata.bin and status.bin. stdout: JSON of what the client sees.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

folder = Path(sys.argv[1])
predict = predict_pb2.PredictResponse.FromString((folder / "predict.bin").read_bytes())
metadata = get_model_metadata_pb2.GetModelMetadataResponse.FromString((folder / "metadata.bin").read_bytes())
status = get_model_status_pb2.GetModelStatusResponse.FromString((folder / "status.bin").read_bytes())


def array_of(proto):
    try:
        return tf.make_ndarray(proto)
    except TypeError:  # it does not know the rarer float8 types; the C++ reader does
        return tf.io.parse_tensor(proto.SerializeToString(), tf.dtypes.as_dtype(proto.dtype)).numpy()


def told(proto):
    array = array_of(proto)
    values = [item.hex() for item in array.reshape(-1)] if array.dtype == object else array.tobytes().hex()
    return {"dtype": tf.dtypes.as_dtype(proto.dtype).name, "shape": list(array.shape), "values": values}


definitions = get_model_metadata_pb2.SignatureDefMap()
assert metadata.metadata["signature_def"].Unpack(definitions)
print(
    json.dumps(
        {
            "outputs": {name: told(proto) for name, proto in predict.outputs.items()},
            "float_val": np.array(predict.outputs["float32"].float_val).tolist(),
            "model_spec": MessageToDict(predict.model_spec),
            "signature_def": MessageToDict(definitions)["signatureDef"],
            "status": MessageToDict(status),
        }
    )
)

"""What users of tensorflow-serving-api do, against a running server; run in .venv-compat.

argv: the gRPC address, an .npz with `picture` and `digits`. stdout: see answers.py.
"""

import sys
import threading

import grpc
import numpy as np
import tensorflow as tf
from answers import tell
from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

address, file = sys.argv[1:]
given = np.load(file)
channel = grpc.insecure_channel(address)
stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
model_stub = model_service_pb2_grpc.ModelServiceStub(channel)


def resnet_client_grpc():
    """As upstream's example of this name."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "resnet"
    request.model_spec.signature_name = "serving_default"
    request.inputs["input_1"].CopyFrom(tf.make_tensor_proto(given["picture"]))
    assert request.inputs["input_1"].tensor_content
    result = stub.Predict(request, 10.0)
    response = np.array(result.outputs["activation_49"].float_val)
    return {"scores": response.tolist(), "prediction": int(np.argmax(response)), "version": version_of(result)}


def version_of(result):
    return result.model_spec.version.value


def mnist_client():
    """As upstream's example of this name: several in flight, each with a callback."""
    concurrency, lock, free, predictions = 4, threading.Lock(), threading.Semaphore(4), {}
    done = threading.Event()

    def callback_for(number):
        def callback(future):
            scores = np.array(future.result().outputs["scores"].float_val)
            with lock:
                predictions[number] = int(np.argmax(scores))
                if len(predictions) == len(given["digits"]):
                    done.set()
            free.release()

        return callback

    for number, digit in enumerate(given["digits"]):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "mnist"
        request.model_spec.signature_name = "predict_images"
        request.inputs["images"].CopyFrom(tf.make_tensor_proto(digit, shape=[1, digit.size]))
        free.acquire()
        stub.Predict.future(request, 5.0).add_done_callback(callback_for(number))
    assert done.wait(20), f"{len(predictions)} answers came, at most {concurrency} at a time"
    return [predictions[number] for number in range(len(given["digits"]))]


def make_ndarray_of_a_batch():
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "mnist"
    request.model_spec.signature_name = "predict_images"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(given["digits"]))
    request.output_filter.append("scores")
    return tf.make_ndarray(stub.Predict(request, 10.0).outputs["scores"]).argmax(axis=1).tolist()


def metadata(name, field="signature_def"):
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = name
    request.metadata_field.append(field)
    result = stub.GetModelMetadata(request, 10.0)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert result.metadata["signature_def"].Unpack(signatures), result.metadata["signature_def"].type_url
    return {"version": version_of(result), **MessageToDict(signatures)}


def status(name):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    return MessageToDict(model_stub.GetModelStatus(request, 10.0))


def predict(name="resnet", signature="", timeout=10.0, **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return version_of(stub.Predict(request, timeout))


tell(
    {
        "resnet_client_grpc": resnet_client_grpc,
        "mnist_client": mnist_client,
        "make_ndarray of a batch": make_ndarray_of_a_batch,
        "metadata": lambda: metadata("mnist"),
        "metadata of nobody": lambda: metadata("nobody"),
        "metadata field": lambda: metadata("mnist", "foo"),
        "status": lambda: status("mnist"),
        "status of nobody": lambda: status("nobody"),
        "unknown model": lambda: predict("nobody"),
        "unknown signature": lambda: predict(signature="nope", input_1=given["picture"]),
        "no inputs": predict,
        "wrong name": lambda: predict(image=given["picture"]),
        "wrong dtype": lambda: predict(input_1=given["picture"].astype(np.float64)),
        "wrong shape": lambda: predict(input_1=given["picture"][0]),
        "too late": lambda: predict("sleeper", timeout=0.1, x=np.zeros((1, 1), np.float32)),
        "on time": lambda: predict("sleeper", timeout=5.0, x=np.zeros((1, 1), np.float32)),
    }
)

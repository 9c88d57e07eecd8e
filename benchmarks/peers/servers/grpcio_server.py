"""gRPC baseline: TensorFlow Serving's Predict on grpcio, with threads (sync) or asyncio (aio).

usage: grpcio_server.py sync|aio PORT
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
from predict_pb2 import PredictRequest, PredictResponse

import peer_model as model

DT_FLOAT = 1
SERVICE = "tensorflow.serving.PredictionService"
OPTIONS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.so_reuseport", 0)]


def view(request: PredictRequest) -> np.ndarray:
    """The request's tensor without a copy."""
    tensor = request.inputs["x"]
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    return np.frombuffer(tensor.tensor_content, np.float32).reshape(shape)


def answer(scores: np.ndarray) -> PredictResponse:
    response = PredictResponse()
    tensor = response.outputs["y"]
    tensor.dtype = DT_FLOAT
    for size in scores.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = scores.tobytes()
    return response


def predict(request: PredictRequest) -> PredictResponse:
    return answer(model.run(view(request)))


async def predict_later(request: PredictRequest, context: grpc.aio.ServicerContext) -> PredictResponse:
    return predict(request)


def handler(method) -> grpc.GenericRpcHandler:
    codec = {
        "request_deserializer": PredictRequest.FromString,
        "response_serializer": PredictResponse.SerializeToString,
    }
    return grpc.method_handlers_generic_handler(
        SERVICE, {"Predict": grpc.unary_unary_rpc_method_handler(method, **codec)}
    )


def serve_sync(address: str) -> None:
    server = grpc.server(ThreadPoolExecutor(4), options=OPTIONS)
    server.add_generic_rpc_handlers((handler(lambda request, context: predict(request)),))
    server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()


async def serve_aio(address: str) -> None:
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((handler(predict_later),))
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    kind, port = sys.argv[1:]
    if kind == "sync":
        serve_sync(f"127.0.0.1:{port}")
    else:
        asyncio.run(serve_aio(f"127.0.0.1:{port}"))

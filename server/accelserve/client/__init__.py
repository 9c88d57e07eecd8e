"""A small client: raw scoring and Predict over HTTP, Predict over gRPC, without TensorFlow.

with Client("http://127.0.0.1:8501") as client:
    print(client.score("digit-7.jpg", top=3))
with GrpcClient("127.0.0.1:8500") as client:
    print(client.predict({"images": [jpeg_bytes]})["scores"])
"""

from accelserve.client.grpc_client import GrpcClient
from accelserve.client.http_client import Client
from accelserve.client.server_error import ServerError
from accelserve.client.tls import ClientTls
from accelserve.client.values import as_tensor

__all__ = ["Client", "ClientTls", "GrpcClient", "ServerError", "as_tensor"]

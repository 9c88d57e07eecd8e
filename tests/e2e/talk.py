"""What the end-to-end tests say to a server, and what they read of it: HTTP over plain sockets, gRPC, its metrics."""

import asyncio
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from server_process import Server

from accelserve.codecs.tfserving_proto import decode_predict_response, encode_predict_request
from accelserve.messages import ModelRef

PATIENCE_S = 30.0


@dataclass(frozen=True)
class Answer:
    """headers: lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def batch_rows(self) -> int:
        return int(self.headers["x-accelserve-timing"].rpartition("batch=")[2].partition(",")[0])


def request_bytes(
    path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, method: str = ""
) -> bytes:
    """One HTTP/1.1 request; POST when there is a body."""
    method = method or ("GET" if body is None else "POST")
    lines = [
        f"{method} {path} HTTP/1.1",
        "host: test",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode() + (body or b"")


class Connection:
    """A kept connection; every wait is bounded."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def send(self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> None:
        self.socket.sendall(request_bytes(path, body, headers))

    def read(self) -> Answer:
        """The next answer. Raises ConnectionError when the server closed instead."""
        status_line = self._file.readline()
        if not status_line.endswith(b"\r\n"):
            raise ConnectionResetError("closed before an answer")
        headers = {}
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            headers[name.strip().lower()] = value.strip()
        length = int(headers["content-length"])
        body = self._file.read(length)
        if len(body) != length:
            raise ConnectionResetError("closed within an answer")
        return Answer(int(status_line.split()[1]), headers, body)

    def ask(self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        self.send(path, body, headers)
        return self.read()


def ask(server: Server | int, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
    """One request on a connection of its own."""
    with Connection(server if isinstance(server, int) else server.http_port) as connection:
        return connection.ask(path, body, headers)


def ask_all(
    server: Server, asked: Sequence[tuple[str, bytes]], headers: Mapping[str, str] | None = None
) -> list[Answer]:
    """All at once, each on a connection of its own that is open before the first request is sent."""

    async def main() -> list[Answer]:
        streams = [await asyncio.open_connection("127.0.0.1", server.http_port) for _ in asked]
        try:
            async with asyncio.timeout(PATIENCE_S):
                for (_, writer), (path, body) in zip(streams, asked, strict=True):
                    writer.write(request_bytes(path, body))
                return await asyncio.gather(*(_read(reader) for reader, _ in streams))
        finally:
            for _, writer in streams:
                writer.close()
            await asyncio.gather(*(writer.wait_closed() for _, writer in streams))

    return asyncio.run(main())


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    return Answer(int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"])))


def in_background(work: Callable[[], Answer], pool: ThreadPoolExecutor) -> Callable[[], Answer]:
    """Start `work` on the pool; the returned function waits for its answer."""
    future = pool.submit(work)
    return lambda: future.result(PATIENCE_S)


def instances(*rows: Sequence[float]) -> bytes:
    return json.dumps({"instances": [list(row) for row in rows]}).encode()


class Calls:
    """gRPC Predict, many at a time on one channel."""

    def __init__(self, server: Server) -> None:
        self._channel = grpc.insecure_channel(server.grpc)
        self._predict = self._channel.unary_unary("/tensorflow.serving.PredictionService/Predict")

    def __enter__(self) -> "Calls":
        return self

    def __exit__(self, *failure: object) -> None:
        self._channel.close()

    def start(
        self,
        model: str,
        inputs: Mapping[str, Any],
        timeout_s: float = PATIENCE_S,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> grpc.Future:
        """A call in flight: `.result()` gives the wire bytes for `outputs_of`, or raises grpc.RpcError."""
        tensors = {name: np.asarray(value) for name, value in inputs.items()}
        asked = encode_predict_request(ModelRef(model), "", tensors)
        return self._predict.future(asked, timeout=timeout_s, metadata=metadata)


def outputs_of(data: bytes) -> dict[str, np.ndarray]:
    return dict(decode_predict_response(data).outputs)


def strings(*items: bytes) -> np.ndarray:
    tensor = np.empty(len(items), np.object_)
    tensor[:] = items
    return tensor


def row(*values: float) -> np.ndarray:
    return np.float32([values])


class Scrape:
    """The metrics page at one moment."""

    def __init__(self, server: Server | int) -> None:
        page = ask(server, "/metrics").body.decode()
        families = text_string_to_metric_families(page)
        self._samples = [(s.name, s.labels, s.value) for family in families for s in family.samples]

    def sum(self, name: str, **labels: str) -> float:
        """Of all samples that carry these labels."""
        return sum(v for n, found, v in self._samples if n == name and labels.items() <= found.items())

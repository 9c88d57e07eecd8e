"""A worker of an entry script in a process of its own, spoken to as the pool does; ended by its pid."""

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from accelserve.entry_script.framing import Frame, FrameKind, FrameReader, frame_buffers
from accelserve.entry_script.heads import RequestHeads, ResponseHeads, settings_frame, start_of
from accelserve.entry_script.messages import (
    ScriptRequest,
    ScriptResponse,
    WorkerFailed,
    WorkerReady,
    WorkerSettings,
)

LIMIT_S = 60.0
JSON = (("content-type", "application/json"),)


def post(body: bytes | str = b"", *headers: tuple[str, str], path: str = "/score") -> ScriptRequest:
    return ScriptRequest("POST", path, b"", tuple(headers), body.encode() if isinstance(body, str) else body)


def get(query: bytes = b"", *headers: tuple[str, str], method: str = "GET") -> ScriptRequest:
    return ScriptRequest(method, "/score", query, tuple(headers), b"")


@dataclass
class Worker:
    """start: what it said first, None if it ended instead. printed: the file of its stdout and stderr."""

    process: subprocess.Popen
    sock: socket.socket
    printed: Path
    start: WorkerReady | WorkerFailed | None = None
    reader: FrameReader = field(default_factory=FrameReader)
    frames: list[Frame] = field(default_factory=list)
    heads: RequestHeads = field(default_factory=RequestHeads)
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def ready(self) -> WorkerReady:
        assert isinstance(self.start, WorkerReady), (self.start, self.printed.read_text())
        return self.start

    @property
    def failed(self) -> WorkerFailed:
        assert isinstance(self.start, WorkerFailed), self.start
        return self.start

    def send(self, request: ScriptRequest, kind: FrameKind = FrameKind.REQUEST) -> int:
        """Its id."""
        request_id = next(self.ids)
        for buffer in frame_buffers(self.heads.frame(request_id, request)._replace(kind=kind)):
            self.sock.sendall(buffer)
        return request_id

    def next_frame(self) -> Frame | None:
        """None when the worker has closed its end."""
        while not self.frames:
            try:
                data = self.sock.recv(self.reader.wanted)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.frames += self.reader.feed(data)
        return self.frames.pop(0)

    def receive(self) -> tuple[int, ScriptResponse]:
        frame = self.next_frame()
        assert frame is not None, f"the worker has ended:\n{self.printed.read_text()}"
        return frame.request_id, ResponseHeads().response(frame)

    def ask(self, request: ScriptRequest) -> ScriptResponse:
        asked = self.send(request)
        answered, response = self.receive()
        assert answered == asked
        return response

    def log(self) -> str:
        return self.printed.read_text(errors="replace")


@contextmanager
def worker(folder: Path, script: str | Path, *, prelude: str = "", permits: int = -1, **settings) -> Iterator[Worker]:
    """script: its text, or its path. prelude: set before the text, for what many scripts begin with.

    permits: an eventfd, for requests given ahead.
    """
    path = script
    if isinstance(script, str):
        path = folder / "score.py"
        path.write_text(prelude + script)
    ours, theirs = socket.socketpair()
    ours.settimeout(LIMIT_S)
    printed = folder / f"printed-{ours.fileno()}.txt"
    inherited = [theirs.fileno(), *([permits] if permits >= 0 else [])]
    arguments = map(str, [theirs.fileno(), os.getpid(), *inherited[1:]])
    with theirs, printed.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "accelserve.entry_script.worker", *arguments],
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
        )
    made = Worker(process, ours, printed)
    try:
        told = WorkerSettings(str(path), settings.pop("app_root", str(folder)), **settings)
        for buffer in frame_buffers(settings_frame(told)):
            ours.sendall(buffer)
        first = made.next_frame()
        made.start = None if first is None else start_of(first)
        yield made
    finally:
        ours.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

"""Files to an entry script, without a server: its own process, asked as the server asks it."""

import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from accelserve.entry_script.framing import Frame, FrameReader, frame_buffers
from accelserve.entry_script.heads import RequestHeads, ResponseHeads, settings_frame, start_of
from accelserve.entry_script.launch import kill_group, worker_command
from accelserve.entry_script.messages import ScriptRequest, ScriptResponse, WorkerFailed, WorkerSettings
from accelserve.errors import Kind, ScoringError
from accelserve.process_ends import signal_name
from accelserve.score_files.asking import FileBody, RefusalError, Reply
from accelserve.score_files.ranking import plain_answer
from accelserve.score_files.results import Spent

_PATIENCE_S = 2.0  # beyond the script's own limit, which the worker keeps by itself where it can
_ENDS_S = 5.0
_DEVICE = "entry script"


class ScriptAsker:
    """A worker of its own, started by the constructor, which waits for init(); started again when it has died.

    Raises ScoringError(PRECONDITION) if the script cannot be loaded. What the script
    prints and raises goes to standard error.
    """

    def __init__(self, settings: WorkerSettings, now_s: Callable[[], float]) -> None:
        self._settings = settings
        self._now_s = now_s
        self._worker: _Worker | None = _Worker(settings)

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def ask(self, files: Sequence[FileBody]) -> Reply:
        if len(files) != 1:
            raise RefusalError("NO BATCH", "an entry script takes one file at a time")
        request = ScriptRequest("POST", "/score", b"", (), files[0].body)
        started_s = self._now_s()
        response = self._run(request)
        total_ms = (self._now_s() - started_s) * 1000
        if response.report:
            print(response.report, file=sys.stderr, flush=True)
        if not 200 <= response.status < 300:
            said = plain_answer(response.body)
            message = said.get("message", said) if isinstance(said, dict) else said
            raise RefusalError(str(response.status), str(message))
        run_ms = None if response.run_ns is None else response.run_ns / 1e6
        return Reply([plain_answer(response.body)], Spent(total_ms, compute_ms=run_ms), _DEVICE)

    def _run(self, request: ScriptRequest) -> ScriptResponse:
        if self._worker is None:
            try:
                self._worker = _Worker(self._settings)
            except ScoringError as error:
                raise RefusalError("NO START", error.message) from error
        try:
            return self._worker.run(request, self._settings.timeout_ms / 1000 + _PATIENCE_S)
        except _EndedError as ended:
            self.close()
            raise RefusalError("SCRIPT ENDED", str(ended)) from ended


class _EndedError(Exception):
    """The worker has ended, or was ended because it did not answer; in words."""


class _Worker:
    def __init__(self, settings: WorkerSettings) -> None:
        self._socket, theirs = socket.socketpair()
        self._reader, self._frames = FrameReader(), list[Frame]()
        self._requests, self._responses = RequestHeads(), ResponseHeads()
        with theirs:
            self._process = subprocess.Popen(
                worker_command(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
                start_new_session=True,
            )
        self._ended = os.pidfd_open(self._process.pid)
        try:
            self._begin(settings)
        except BaseException:
            self.close()
            raise

    def _begin(self, settings: WorkerSettings) -> None:
        try:
            self._send(settings_frame(settings))
            start = start_of(self._next())
        except (_EndedError, ValueError) as error:
            raise ScoringError(Kind.PRECONDITION, f"{settings.script}: {error}") from error
        if isinstance(start, WorkerFailed):
            raise ScoringError(Kind.PRECONDITION, f"{start.message}\n{start.traceback}".rstrip())

    def run(self, request: ScriptRequest, limit_s: float) -> ScriptResponse:
        """Raises _EndedError."""
        self._socket.settimeout(limit_s)
        try:
            self._send(self._requests.frame(1, request))
            return self._responses.response(self._next())
        except TimeoutError as error:
            kill_group(self._process.pid)
            raise _EndedError(f"run() did not end within {limit_s:.0f} s") from error
        except ValueError as error:
            kill_group(self._process.pid)
            raise _EndedError(f"the worker does not keep to its protocol: {error}") from error

    def _send(self, frame: Frame) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # that it has ended is told when its answer is read
            for buffer in frame_buffers(frame):
                self._socket.sendall(buffer)

    def _next(self) -> Frame:
        while not self._frames:
            data = b""
            with suppress(ConnectionResetError):
                data = self._socket.recv(self._reader.wanted)
            if not data:
                raise _EndedError(self._how_it_ended())
            self._frames += self._reader.feed(data)
        return self._frames.pop(0)

    def _how_it_ended(self) -> str:
        if not self._ends():
            return "the script closed the connection of its own process"
        kill_group(self._process.pid)  # what it has started
        status = self._process.wait()
        if status < 0:
            return f"the script's process was ended by {signal_name(-status)}"
        return f"the script's process ended itself with exit code {status}"

    def close(self) -> None:
        """With all that it has started."""
        self._socket.close()  # which ends the worker
        if self._process.returncode is None:
            self._ends()
            kill_group(self._process.pid)
            self._process.wait()
        os.close(self._ended)

    def _ends(self) -> bool:
        """Whether it has ended, after a while in which it may. It is not waited for, so that its group can be ended."""
        poll = select.poll()
        poll.register(self._ended, select.POLLIN)
        return bool(poll.poll(_ENDS_S * 1000))

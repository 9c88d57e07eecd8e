"""Workers that tests hold in their hands: what they are sent is read here, what they say is said here."""

from collections.abc import Mapping, Sequence

from accelserve.entry_script.framing import Frame, FrameKind, FrameReader
from accelserve.entry_script.heads import RequestHeads, ResponseHeads, failed_frame, ready_frame
from accelserve.entry_script.messages import ScriptRequest, ScriptResponse, WorkerFailed, WorkerReady
from accelserve.entry_script.pool import WorkerPool

SWAGGER = {"2": '{"swagger": "2.0"}', "3": '{"openapi": "3.0.3"}'}


class FakeClock:
    def __init__(self) -> None:
        self.now = 10**12

    def now_ns(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * 1e9)


class FakeWorker:
    """One worker. asked: the requests that it has been sent and has not answered."""

    def __init__(self, number: int, pool: WorkerPool, pid: int) -> None:
        self.number = number
        self.pid = pid
        self.killed_for = ""
        self.closed = False
        self.settings: Frame | None = None
        self.asked: list[tuple[int, ScriptRequest]] = []
        self.permits = 0
        self._pool = pool
        self._reader = FrameReader()
        self._requests, self._responses = RequestHeads(), ResponseHeads()

    def send(self, buffers: Sequence[bytes]) -> None:
        for frame in self._reader.feed(b"".join(buffers)):
            if frame.kind is FrameKind.SETTINGS:
                self.settings = frame
            else:
                self.asked.append((frame.request_id, self._requests.request(frame)))

    def permit(self) -> None:
        self.permits += 1

    def recall(self, most: int) -> int:
        count = min(most, self.permits)
        self.permits -= count
        if count:
            del self.asked[-count:]
        return count

    def kill(self, why: str) -> None:
        self.killed_for = why

    def close(self) -> None:
        """It ends by itself, at once."""
        self.closed = True
        self.ends("it ended with exit code 0")

    # -- what it says

    def ready(self, concurrent: bool = False) -> None:
        self._pool.worker_told(self.number, ready_frame(WorkerReady("rawhttp", concurrent, SWAGGER)))

    def failed(self, message: str, traceback: str = "") -> None:
        self._pool.worker_told(self.number, failed_frame(WorkerFailed(message, traceback)))

    def answers(
        self, body: bytes = b"", status: int = 200, run_ns: int = 10**7, failed: bool = False, report: str = ""
    ) -> ScriptRequest:
        """The oldest request. Returns what was asked."""
        request_id, request = self.asked.pop(0)
        if self.asked:
            self.permits = max(0, self.permits - 1)  # it begins the next one
        response = ScriptResponse(status, body, "text/plain", (), run_ns, failed, report)
        self._pool.worker_told(self.number, self._responses.frame(request_id, response))
        return request

    def ends(self, why: str) -> None:
        self._pool.worker_ended(self.number, why)


class Workers:
    """Launches them. all: each that was ever started, in order; by_number: the latest of each place."""

    def __init__(self) -> None:
        self.all: list[FakeWorker] = []
        self.by_number: dict[int, FakeWorker] = {}
        self.refuse = False

    def launch(self, number: int, environ: Mapping[str, str], owner: WorkerPool, clock: FakeClock) -> FakeWorker:
        if self.refuse:
            raise OSError(12, "Cannot allocate memory")
        worker = FakeWorker(number, owner, 1000 + len(self.all))
        self.all.append(worker)
        self.by_number[number] = worker
        return worker

    def __getitem__(self, number: int) -> FakeWorker:
        return self.by_number[number]

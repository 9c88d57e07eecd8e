"""grpcio's core without the servers that grpcio builds on it: calls reach the event loop in groups.

Those servers spend more on a small call than its model does: a thread that waits for each call, or two tasks and four
futures. Here one thread waits for what the core has to tell, lets each call's message come in, and wakes the event loop
once for all that has come; the loop ends each call with one batch of operations.

The only module that uses `grpc._cython.cygrpc`, which grpcio does not promise to keep: pyproject.toml bounds grpcio's
version, and tests/frontends/test_grpc_core.py asks of it all that is relied on here.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError
from grpc._cython import cygrpc

from accelserve.ticket import Errand

logger = logging.getLogger("accelserve.frontends")

Metadata = Sequence[tuple[str, str]]

_ENDLESS_S = 1e10  # in seconds since 1970; the core's word for "no deadline" lies behind it
_LAST_CALLS_S = 5.0  # calls that were cancelled end at once
_NO_FLAGS = 0
# To hear of a client that goes away costs as much as a tenth of a small call, so only calls that wait are watched: from
# once to twice this time after they came.
_WATCH_AFTER_S = 0.005


@dataclass(frozen=True, slots=True)
class Unary:
    """One message, one answer: the handler ends its call with `answer` or `refuse`."""

    handle: "Callable[[CoreCall, bytes], Coroutine[Any, Any, None]]"


@dataclass(frozen=True, slots=True)
class Streaming:
    """The handler takes messages with `receive`, gives answers with `send`, and ends its call."""

    handle: "Callable[[CoreCall], Coroutine[Any, Any, None]]"


Handlers = Mapping[str, Unary | Streaming]  # by path: "/package.Service/Method"


class Porter(Protocol):
    """Turns calls away by what they bring before their first message."""

    def refusal(self, path: str, metadata: Any) -> Exception | None:
        """On the thread that hears the core. path: "" for a method that is not there; metadata: pairs of texts."""
        ...

    def turn_away(self, core: "CoreCall", error: Any) -> None:
        """On the loop: ends the call, with what `refusal` said."""
        ...


class CoreCall(Errand):
    """One call, from its first message to its status. Belongs to the event loop.

    Its handler is driven by hand: there is no task around it. A client that goes away, a deadline that passes and a
    server that will not wait longer cancel it.
    """

    __slots__ = ("_begun", "_call", "_event", "_handler", "_over", "_watched")

    def __init__(self, event: Any, handler: Unary | Streaming | None) -> None:
        """handler: None of a call that is only to be refused."""
        super().__init__()
        self._event = event
        self._call = event.call
        self._handler = handler
        self._begun = False  # the initial metadata is sent
        self._watched = False  # the end of the call will be told
        self._over = False

    def metadata(self) -> dict[str, str]:
        """Values are text under every key that does not end in "-bin", and we read no such."""
        return dict(self._event.invocation_metadata)

    def time_left_s(self) -> float | None:
        """Until the caller's deadline; None without one."""
        deadline_s: float = self._event.call_details.deadline
        return None if deadline_s > _ENDLESS_S else max(0.0, deadline_s - time.time())

    def answer(self, data: bytes, trailing: Metadata = ()) -> None:
        """The one answer, and OK."""
        self._end(grpc.StatusCode.OK, "", trailing, cygrpc.SendMessageOperation(data, _NO_FLAGS))

    def finish(self) -> None:
        """OK, after a stream of answers."""
        self._end(grpc.StatusCode.OK, "", ())

    def refuse(self, code: grpc.StatusCode, text: str, trailing: Metadata = ()) -> None:
        self._end(code, text, trailing)

    async def receive(self) -> bytes | None:
        """The next message; None when no more come."""
        (operation,) = await self._done(cygrpc.ReceiveMessageOperation(_NO_FLAGS))
        message: bytes | None = operation.message()
        return message

    async def send(self, data: bytes) -> None:
        """One answer of many; returns when there is room for the next."""
        first, self._begun = self._first(), True
        await self._done(*first, cygrpc.SendMessageOperation(data, _NO_FLAGS))

    @property
    def is_over(self) -> bool:
        """Its status is sent, or nobody waits for one."""
        return self._over

    def begin(self, message: bytes | None) -> None:
        """message: of a unary call; None when there is none."""
        if isinstance(self._handler, Streaming):
            self.run(self._handler.handle(self))
        elif message is not None and self._handler is not None:
            self.run(self._handler.handle(self, message))
        else:
            self.refuse(grpc.StatusCode.UNIMPLEMENTED, "this method wants one message")

    def watch(self) -> None:
        """Hear of its end, whoever ends it."""
        if not self._over:
            self._watched = True
            self._call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),), _Close(self))

    def let_go(self) -> None:
        """Nobody waits for its end any more."""
        self._over = True
        self.cancel()

    def returned(self, value: None) -> None:
        if not self._over:
            logger.error("a gRPC handler did not end its call")
            self.refuse(grpc.StatusCode.INTERNAL, "internal error")

    def raised(self, error: BaseException) -> None:
        if isinstance(error, DecodeError):
            self.refuse(grpc.StatusCode.INVALID_ARGUMENT, f"the message cannot be read: {error}")
            return
        if not isinstance(error, asyncio.CancelledError):
            logger.error("a gRPC handler failed", exc_info=error)
        self.refuse(grpc.StatusCode.INTERNAL, "internal error")

    def _end(self, code: grpc.StatusCode, text: str, trailing: Metadata, *answer: Any) -> None:
        if self._over:
            return
        status = cygrpc.SendStatusFromServerOperation(trailing, code.value[0], text, _NO_FLAGS)
        close = () if self._watched else (cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),)  # the core wants it once
        # What the core cannot take raises here, and the call can still be refused in other words.
        self._call.start_server_batch((*self._first(), *answer, status, *close), _SENT)
        self._begun = self._over = True
        self._call = self._event = None  # the server may hold this until it next looks whom to watch

    def _first(self) -> tuple[Any, ...]:
        """What goes before anything else that is sent."""
        return () if self._begun else (cygrpc.SendInitialMetadataOperation((), _NO_FLAGS),)

    async def _done(self, *operations: Any) -> Sequence[Any]:
        """The operations, when the core has done them."""
        if self._over:
            raise asyncio.CancelledError
        done: asyncio.Future[Sequence[Any]] = asyncio.get_running_loop().create_future()
        self._call.start_server_batch(operations, done)
        return await done


class CoreServer:
    """Listens, and runs a handler for each call. Belongs to the event loop, but for the thread that hears the core.

    options: grpcio's channel arguments. expected: calls of a method that the core may hand over before it is asked for
    more. What it could not hand over yet, it cancels when it is told to stop. porter: who is let in; without one
    everybody.
    """

    def __init__(
        self, handlers: Handlers, options: Sequence[tuple[str, Any]], expected: int = 1, porter: Porter | None = None
    ) -> None:
        self._expected = expected
        self._porter = porter
        self._queue = cygrpc.CompletionQueue()
        self._core = cygrpc.Server(options, False)
        self._core.register_completion_queue(self._queue)
        for path in handlers:
            self._core.register_method(path)
        self._doors = [_Door(path, handler) for path, handler in handlers.items()]
        self._young: list[CoreCall] = []  # not watched yet: those that have come since it was last looked
        self._older: list[CoreCall] = []  # and those before them
        self._watched: set[CoreCall] = set()
        self._looking: asyncio.TimerHandle | None = None
        self._heard: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._rung = False
        self._stopped = asyncio.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._hear_all, name="accelserve-grpc", daemon=True)

    def add_insecure_port(self, address: str) -> int:
        """The port that is listened at, 0 if it cannot be."""
        return int(self._core.add_http2_port(address.encode()))

    def add_secure_port(self, address: str, credentials: Any) -> int:
        """The same with TLS. credentials: grpc.ServerCredentials."""
        return int(self._core.add_http2_port(address.encode(), credentials._credentials))

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._core.start()
        for door in (*self._doors, _ANY_OTHER):
            for _ in range(self._expected):
                self._expect(door)
        self._thread.start()

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, and end when those that run have ended; after `grace_s` they end with UNAVAILABLE."""
        self._core.shutdown(self._queue, _STOPPED)
        if not await self._stops_within(grace_s):
            self._core.cancel_all_calls()
            if not await self._stops_within(_LAST_CALLS_S):
                logger.error("%d cancelled gRPC calls have not ended", len(self._watched))
        self._closed = True  # the core ends the process when it is asked for more after this
        for call in (*self._young, *self._older, *self._watched):
            call.let_go()
        self._queue.shutdown()
        await asyncio.to_thread(self._thread.join)
        self._core.destroy()

    async def _stops_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            return False
        return True

    # -- on the thread that hears the core --------------------------------------------------------------------------

    def _hear_all(self) -> None:
        while self._hear(self._queue.poll()):
            pass

    def _hear(self, event: Any) -> bool:
        """A frame of its own for each event: while the thread waits it holds nothing. False: no more come."""
        if event.tag is None:
            return bool(event.completion_type != cygrpc.CompletionType.queue_shutdown)
        try:
            self._sort(event.tag, event)
        except Exception:  # without its thread the server would be deaf
            logger.exception("a gRPC event was lost")
        return True

    def _sort(self, tag: Any, event: Any) -> None:
        kind = type(tag)
        if tag is _SENT:
            return
        if kind is _Door:
            if event.success:
                self._expect(tag)
                self._let_in(tag, event)
        elif kind is CoreCall:
            self._tell(self._begin, (tag, event.batch_operations[0].message()))
        elif kind is _Close:
            self._tell(self._close, (tag.call, event.batch_operations[0].cancelled()))
        elif tag is _STOPPED:
            self._tell(asyncio.Event.set, self._stopped)
        else:
            self._tell(_resolve, (tag, event.batch_operations))

    def _expect(self, door: "_Door") -> None:
        """Be told of the next call there."""
        try:
            if door.handler is None:
                self._core.request_call(self._queue, self._queue, door)
            else:
                self._core.request_registered_call(self._queue, self._queue, door.path, door)
        except ValueError:  # the loop has just begun to stop
            pass

    def _let_in(self, door: "_Door", event: Any) -> None:
        refusal = None if self._porter is None else self._porter.refusal(door.path, event.invocation_metadata)
        if refusal is not None:
            self._tell(self._turn_away, (CoreCall(event, door.handler), refusal))
            return
        if door.handler is None:
            event.call.start_server_batch(
                (
                    cygrpc.SendInitialMetadataOperation((), _NO_FLAGS),
                    cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),
                    cygrpc.SendStatusFromServerOperation((), *_UNKNOWN_METHOD, _NO_FLAGS),
                ),
                _SENT,
            )
            return
        call = CoreCall(event, door.handler)
        if isinstance(door.handler, Unary):
            event.call.start_server_batch((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), call)
        else:
            self._tell(self._begin, (call, None))

    def _tell(self, what: Callable[[Any], None], about: Any) -> None:
        """Have the loop call `what(about)`, soon, and in order; one wake for all that is told until it looks."""
        self._heard.append((what, about))
        if not self._rung:
            self._rung = True
            try:
                self._loop.call_soon_threadsafe(self._listen)
            except RuntimeError:  # the loop has been closed: nobody answers any more
                logger.warning("a gRPC call came after the server had stopped")

    # -- on the loop ------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._rung = False  # before it looks: what comes from now on rings again
        for _ in range(len(self._heard)):
            what, about = self._heard.popleft()
            try:
                what(about)
            except Exception:
                logger.exception("a gRPC call was lost")

    def _begin(self, come: "tuple[CoreCall, bytes | None]") -> None:
        call, message = come
        if self._closed:
            return
        self._young.append(call)
        if self._looking is None:
            self._looking = self._loop.call_later(_WATCH_AFTER_S, self._look)
        call.begin(message)

    def _turn_away(self, come: "tuple[CoreCall, Exception]") -> None:
        if not self._closed and self._porter is not None:
            self._porter.turn_away(*come)

    def _look(self) -> None:
        """Watch those that have waited."""
        waiting = [call for call in self._older if not call.is_over]
        for call in waiting:
            call.watch()
        self._watched.update(waiting)
        self._older, self._young = self._young, []
        self._looking = self._loop.call_later(_WATCH_AFTER_S, self._look) if self._older else None

    def _close(self, gone: tuple[CoreCall, bool]) -> None:
        call, cancelled = gone
        self._watched.discard(call)
        if cancelled:
            call.let_go()


class _Door:
    """Where calls of one method come in; handler: None for those of all methods that are not there."""

    __slots__ = ("handler", "path")

    def __init__(self, path: str, handler: Unary | Streaming | None) -> None:
        self.path = path
        self.handler = handler


class _Close:
    """The end of a call, whoever ended it."""

    __slots__ = ("call",)

    def __init__(self, call: CoreCall) -> None:
        self.call = call


_SENT = object()
_STOPPED = object()
_ANY_OTHER = _Door("", None)
_UNKNOWN_METHOD = (grpc.StatusCode.UNIMPLEMENTED.value[0], "no such method")


def _resolve(done: tuple[asyncio.Future[Sequence[Any]], Sequence[Any]]) -> None:
    future, operations = done
    if not future.done():
        future.set_result(operations)

"""uvicorn's HTTP/1.1 protocol with limits, timeouts, cancellation and a last answer that arrives.

uvicorn with httptools accepts endless request lines and headers, waits for ever for the rest of a request, and tells
an application of a disconnect only when it asks. Parsing, scope and answers stay uvicorn's; this class watches.
"""

import asyncio
import logging
from collections import deque
from typing import Any, ClassVar

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from accelserve.errors import Kind, ScoringError
from accelserve.frontends.http_body import LARGE_BODY_BYTES, BodyReader
from accelserve.frontends.http_cycle import Cycle
from accelserve.frontends.http_ending import Ending
from accelserve.frontends.http_lane import HotCycle, PlainHead, turned_away
from accelserve.frontends.http_messages import HttpResponse, content_lines
from accelserve.frontends.http_meter import BETWEEN, BODY, HEAD, RequestMeter
from accelserve.frontends.http_parsing import EnoughError, complete_scope, framing_of, is_brief, key_in, problem_of
from accelserve.frontends.http_policy import HttpConnectionPolicy, HttpLimits
from accelserve.frontends.http_timers import Patience, Wait

__all__ = ["HttpConnectionPolicy", "HttpLimits", "HttpProtocol", "protocol_class"]

_, _CONNECT, _HEAD, _BODY, _IDLE, _LINGER, _GOODBYE = Wait  # as in http_meter
_LINE_EXTRA = len("  HTTP/1.1")
_PAUSE_QUEUED = 16  # pipelined requests at which reading pauses; below it, reading on notices a disconnect
_LOG = logging.getLogger("accelserve.frontends.http")


class HttpProtocol(HttpToolsProtocol):
    """One connection. `policy` is bound by `protocol_class`; uvicorn's limit_concurrency is not consulted."""

    policy: ClassVar[HttpConnectionPolicy]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.limits = self.policy.limits
        self.cycle: Cycle | HotCycle = None  # type: ignore[assignment]  # the latest whose headers are complete
        self.pipeline: deque[Cycle | HotCycle] = deque()  # type: ignore[assignment]
        self._active: Cycle | HotCycle | None = None  # the request being answered
        self._starting = False
        self._meter = RequestMeter(self.limits)
        self._reader: BodyReader | None = None  # of a connection that has sent a large body
        self._stopped = False  # nothing more is parsed
        self._cut = False  # ... although the client may well be sending
        self._parting: ScoringError | None = None  # to be told after the answers that come before it
        self._shutting_down = False
        self._patience = Patience(self.loop, self._overdue)
        self._ending: Ending = None  # type: ignore[assignment]  # with the transport, as uvicorn's own

    # --- the transport's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        is_tls = self.scheme == "https"
        self._ending = Ending(self.loop, transport, self.flow, self._patience, self.limits, is_tls)
        self._patience.wait(_CONNECT, self.limits.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._left_in_mid_body():
            self.policy.refused(Kind.CANCELLED)
        self.pipeline.clear()
        if self._active is not None:
            self._active.abandon()
        self._stopped = True
        self._patience.rest()
        self._patience.close()
        self._ending.trust_reader()
        if self._reader is not None:
            self._reader.forget()
            self._reader = None
        if isinstance(self.cycle, HotCycle):
            self.cycle = None  # type: ignore[assignment]  # uvicorn would tell it what only its own cycles understand
        super().connection_lost(exc)

    def _left_in_mid_body(self) -> bool:
        """Whether the client goes before its request is whole, so that no application has counted it."""
        cycle = self.cycle
        return not self._stopped and cycle is not None and cycle.more_body and not cycle.response_complete

    def data_received(self, data: bytes) -> None:
        if self._stopped:
            self._ending.discard(len(data))
            return
        head_bytes = 0
        if self._active is None and self._meter.part is BETWEEN and not self.flow.write_paused:
            plain, head_bytes = self.policy.lane.find(data)
            if plain is not None and self._still_let_in(plain):
                came_bytes = len(data) - head_bytes
                if came_bytes == plain.length:
                    self._take(plain, data[head_bytes:])
                    return
                if came_bytes < plain.length > LARGE_BODY_BYTES and self._take_begun(plain, data, head_bytes):
                    return
        self._meter.before_read()
        try:
            if head_bytes:
                self._learn(data[:head_bytes])
            rest = data[head_bytes:]
            while rest:
                rest = self._parse(rest)
            self._meter.after_read(len(data))
        except httptools.HttpParserError as error:
            self._stop(problem_of(error))
        except ScoringError as error:
            self._stop(error)
        self._start_active()  # only now, when it is known what follows: an answer tells whether it is the last
        self._watch()

    def _take(self, plain: PlainHead, body: bytes) -> None:
        """A whole request with a known head: the parser need not see it."""
        self._patience.rest()
        self.cycle = cycle = HotCycle(self, plain)
        cycle.feed(body)
        cycle.more_body = False
        self._start(cycle)

    def _take_begun(self, plain: PlainHead, data: bytes, head_bytes: int) -> bool:
        """The same with a part of a large body: the rest is received in place. False: there is no memory for that."""
        if self._reader is None:
            self._reader = BodyReader(self, self.transport, self.policy.bodies)
        if not self._reader.expect(plain.length, memoryview(data)[head_bytes:]):
            return False
        self._meter.body_follows()
        self.cycle = self._active = HotCycle(self, plain)
        self._watch()
        return True

    def body_growing(self) -> None:
        self._watch()

    def body_received(self, body: bytes) -> None:
        self._patience.rest()
        self._meter.complete()
        self.cycle.feed(body)
        self.cycle.more_body = False
        self._start_active()

    def _learn(self, head: bytes) -> None:
        """Parse what ends like a head, and remember it if that is all it was."""
        rest, cycle = self._parse(head), self.cycle
        if not rest and self._meter.part is BODY and isinstance(cycle, HotCycle) and cycle.plain.length:
            self.policy.lane.remember(head, cycle.plain)

    def _parse(self, data: bytes) -> bytes:
        """Feed the parser. Returns what it left unparsed, which is what follows a request that asks for an upgrade."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # We never upgrade, and llhttp takes all that follows such a head for the other protocol, the body too.
            # So the head's framing is replayed to a fresh parser: a body is read, the next request is found.
            self.parser = httptools.HttpRequestParser(self)
            self.parser.feed_data(framing_of(self.scope["http_version"], self.headers))
            return data[upgrade.args[0] :]
        return b""

    # --- the parser's callbacks; ScoringError from one of them stops the parsing

    def on_message_begin(self) -> None:
        if self._meter.part is BODY:  # a replayed head
            return
        if self._stopped or len(self.pipeline) >= self.limits.max_queued_requests:
            raise EnoughError
        self._meter.begin()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self._meter.part is BODY:
            return
        self.url += url
        self._meter.line(len(self.url) + len(self.parser.get_method()) + _LINE_EXTRA)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._meter.part is BODY:
            self._meter.trailer(name, value)  # must not pass for a header (RFC 9110 6.5.1); nor is a replayed one new
            return
        headers = self.headers
        if len(headers) >= self.limits.max_headers:
            raise self._meter.too_many_headers()
        name, value = name.lower(), value.rstrip(b" \t")  # RFC 9110 5.5; httptools leaves them
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._meter.part is BODY:
            return
        complete_scope(self.scope, self.parser, self.url, self.root_path)
        refusal = self._why_turned_away()
        if refusal is not None and not self._goes_on_after_refusal():
            raise refusal
        self._meter.head_complete(self.headers)
        self._patience.rest()
        self.cycle = self._cycle() if refusal is None else self._turned_away(refusal)
        if self._active is None:
            self._start(self.cycle)
            return
        self.pipeline.appendleft(self.cycle)
        if len(self.pipeline) >= _PAUSE_QUEUED:
            self.flow.pause_reading()

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if cycle.response_complete:
            return
        self._meter.body(len(body))
        cycle.feed(body)
        if isinstance(cycle, HotCycle) and cycle is not self._active and cycle.plain.length > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():  # comes again when the framing is replayed
            return
        self._meter.complete()
        self._stopped = not self.parser.should_keep_alive()
        self.cycle.more_body = False
        if isinstance(self.cycle, Cycle):
            self.cycle.message_event.set()

    def _why_turned_away(self) -> ScoringError | None:
        """Of the request whose head is complete; None if it is let in."""
        guard = self.policy.guard
        if guard is None:
            return None
        return guard.refusal(self.scope["path"], key_in(self.headers), self.scope["method"])

    def _still_let_in(self, plain: PlainHead) -> bool:
        """Whether a head that came before would be let in again: keys may have changed."""
        guard = self.policy.guard
        return guard is None or plain.let_in == guard.version

    def _goes_on_after_refusal(self) -> bool:
        """Whether the connection can be kept: what follows is the next request, and none of a large body is read."""
        return self._is_kept() and self.scope["method"] != "HEAD" and is_brief(self.headers)

    def _turned_away(self, refusal: ScoringError) -> HotCycle:
        cycle = HotCycle(self, turned_away(self.scope, self.policy, refusal))
        cycle.feed(b"")  # it may have no body
        return cycle

    def _is_kept(self) -> bool:
        return self.scope["http_version"] == "1.1" and bool(self.parser.should_keep_alive())

    def _cycle(self) -> Cycle | HotCycle:
        plain = self._plain_head()
        return self._new_cycle() if plain is None else HotCycle(self, plain)

    def _plain_head(self) -> PlainHead | None:
        """Of the head that is complete: what the short lane wants of it."""
        guard = self.policy.guard
        if not self._is_kept():
            return None
        return self.policy.lane.plain_head(self.scope, self.headers, 0 if guard is None else guard.version)

    def _new_cycle(self) -> Cycle:
        http11 = self.scope["http_version"] == "1.1"
        return Cycle(
            self,
            self.scope,
            self.transport,
            self.flow,
            self.logger,
            self.access_logger,
            self.access_log,
            self.server_state.default_headers,
            asyncio.Event(),
            self.expect_100_continue and http11,
            http11 and self.parser.should_keep_alive(),
            self.on_response_complete,
        )

    # --- the request's questions

    def closes_after(self, cycle: Cycle | HotCycle) -> bool:
        if cycle.more_body:
            return True
        if self.pipeline or self._meter.part is HEAD or self._parting is not None:
            return False
        return self._stopped or self._shutting_down or self.policy.draining

    def ready_to_read(self) -> None:
        if self._patience.what is _BODY:
            self._patience.wait(_BODY, self.limits.body_timeout_s)

    def refusal(self, error: ScoringError) -> HttpResponse:
        return self.policy.refusal(error)

    def answer(self, cycle: HotCycle, answer: HttpResponse) -> None:
        """Write an answer of the short lane, byte for byte as uvicorn writes those of the other."""
        cycle.response_started = cycle.response_complete = True
        cycle.last = self.closes_after(cycle)
        close = b"connection: close\r\n\r\n" if cycle.last else b"\r\n"
        begin = self.policy.beginning(answer.status, self.server_state.default_headers)
        self.transport.write(b"".join((begin, answer.lines, content_lines(answer), close, answer.body)))
        self.on_response_complete()

    def _start(self, cycle: Cycle | HotCycle) -> None:
        self._active = cycle
        if isinstance(cycle, HotCycle):
            self._start_active()
        else:
            self._start_asgi_task(cycle, self.app)

    def _start_active(self) -> None:
        """A client that does not read gets no further answer; uvicorn's cycle waits for that in its `send`."""
        active = self._active
        if isinstance(active, HotCycle) and not self.flow.write_paused:
            self.policy.lane.arrive(active)

    def _start_next(self) -> None:
        """Those that are answered at once follow each other here, and not within each other."""
        if self._starting:
            return
        self._starting = True
        try:
            while self.pipeline and self._active is None:
                self._start(self.pipeline.pop())
        finally:
            self._starting = False

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        answered, self._active = self._active, None
        if self.transport.is_closing():
            return
        if answered is not None and answered.last:
            self._close_after_answer()
        elif self.pipeline:
            self.flow.resume_reading()
            self._start_next()
        elif self._parting is not None:
            self._say_parting(self._parting)
        else:
            self.flow.resume_reading()
            if self._meter.part is BETWEEN:
                self._patience.wait(_IDLE, self.limits.keep_alive_s)

    def give_up(self) -> None:
        """The server ends: a request in the short lane is told so."""
        if isinstance(self._active, HotCycle) and not self._active.more_body:
            self._active.give_up()

    # --- ending

    def _stop(self, error: ScoringError | None) -> None:
        """Parse no further. error: what the request under way is told; None when it needs no telling."""
        already, self._stopped, self._cut = self._stopped, True, True
        if self._reader is not None:
            self._reader.forget()
        if already or error is None:
            return
        _LOG.debug("refused a request from %s: %s", self.client, error.message)
        begun = self._meter.part is BODY and self.cycle.response_started
        if not begun:
            self.policy.refused(error.kind)
            self._parting = error
        if self._meter.part is BODY:
            self._drop(self.cycle)
        if begun:
            self._close_after_answer()  # half an answer cannot be taken back, only cut
        elif self._active is None:
            self._say_parting(error)

    def _drop(self, cycle: Cycle | HotCycle) -> None:
        """Take back the latest request, the rest of whose body will not come."""
        if cycle is self._active:
            self._active = None
            cycle.abandon()
        else:
            self.pipeline.popleft()

    def _say_parting(self, error: ScoringError) -> None:
        self.transport.write(self.policy.last_words(error, self.server_state.default_headers))
        self._close_after_answer()

    def _close_after_answer(self) -> None:
        """Close so that the answer can be read: a client that may be sending is listened to for a while."""
        self._stopped = True
        if self._meter.part is BETWEEN and not self._cut and not self._ending.discarded_bytes:
            self._ending.close()
        else:
            self._ending.linger()

    def shutdown(self) -> None:
        """Close if idle, else after the last request that has begun to arrive. Called by uvicorn when it stops."""
        self._shutting_down = True
        idle = self._meter.part is BETWEEN and self._active is None and not self._stopped
        if idle and not self.transport.is_closing() and self._ending.is_read():
            self._ending.close()

    # --- deadlines

    def _watch(self) -> None:
        """Decide what is waited for now that bytes have come."""
        if self._patience.what is _LINGER or self.transport.is_closing():
            return
        if self._stopped:
            self._patience.rest()
        elif self._meter.part is HEAD:
            if self._patience.what is not _HEAD:
                self._patience.wait(_HEAD, self.limits.header_timeout_s)
        elif self._meter.part is BODY:
            self._patience.wait(_BODY, self.limits.body_timeout_s)
        elif self._active is not None:
            self._patience.rest()

    def _overdue(self) -> None:
        what = self._patience.what
        if what is _GOODBYE:
            self._ending.goodbye_overdue()
        elif what not in (_HEAD, _BODY):
            self._ending.close()
        elif self._excused():
            self._patience.wait(what, self.limits.body_timeout_s)
        else:
            rest = "body" if what is _BODY else "headers"
            self._stop(ScoringError(Kind.READ_TIMEOUT, f"the rest of the request's {rest} did not come in time"))
            self._watch()

    def _excused(self) -> bool:
        """Whether the client's silence is our doing: we do not read, or owe it a 100 Continue."""
        return self.flow.read_paused or (self._patience.what is _BODY and self.cycle.waiting_for_100_continue)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._ending.watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._ending.trust_reader()
            self._start_active()


def protocol_class(policy: HttpConnectionPolicy) -> type[HttpProtocol]:
    """The class to give to `uvicorn.Config(http=...)`."""
    return type("BoundHttpProtocol", (HttpProtocol,), {"policy": policy})

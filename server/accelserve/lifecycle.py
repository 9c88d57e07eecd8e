"""Whether the process has been told to stop."""

import asyncio


class Lifecycle:
    """Moved by the runtime, read by everybody else; only the event loop touches it.

    stopping: readiness is off; what still arrives is answered until the sockets close. closing: they do so now.
    grpc_closed: gRPC's listener takes no more calls.
    """

    def __init__(self) -> None:
        self.stopping = False
        self.closing = False
        self.grpc_closed = asyncio.Event()

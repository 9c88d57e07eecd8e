"""The worker as a process: it ends with its server, leaves signals to it, and keeps a way to speak of its own."""

import ctypes
import faulthandler
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
_SERVERS_SIGNALS: Mapping[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}
_OURS = os.path.dirname(__file__)


def die_with(parent: int) -> None:
    """Be killed when the process that started us ends, whatever a script holds on to; at once if it has ended."""
    with suppress(OSError, AttributeError):  # elsewhere than on Linux the closed socket has to do
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def leave_signals_to_the_server() -> None:
    """Ctrl-C and a service manager's SIGTERM reach all processes; the server decides when workers end.

    Children of a script have both as ever; what comes while one is being made waits until that is so.
    """
    for number in _SERVERS_SIGNALS:
        signal.signal(number, _pass_over)
    usual = threading.local()  # what the thread that forks had blocked

    def before() -> None:
        usual.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SERVERS_SIGNALS)

    def after_in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, usual.mask)

    def after_in_child() -> None:
        for number, handler in _SERVERS_SIGNALS.items():
            if signal.getsignal(number) is _pass_over:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, usual.mask)

    os.register_at_fork(before=before, after_in_parent=after_in_parent, after_in_child=after_in_child)


def _pass_over(number: int, frame: FrameType | None) -> None:
    pass


def keep_to_this_process(sock: socket.socket) -> None:
    """Neither the programs nor the forks of a script shall speak to the server, or keep it waiting for an end."""
    sock.set_inheritable(False)
    os.register_at_fork(after_in_child=sock.close)


class Report:
    """Tracebacks into the server's log, also when the script has closed or replaced stderr."""

    def __init__(self) -> None:
        try:
            self._descriptor = os.dup(2)
        except OSError:  # closed
            self._descriptor = os.open(os.devnull, os.O_WRONLY)
        faulthandler.enable(self._descriptor)

    def __call__(self, error: BaseException) -> None:
        self.write(told(error))

    def write(self, text: str) -> None:
        rest = memoryview(text.encode("utf-8", "backslashreplace"))
        with suppress(OSError):  # nobody listens
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]


def told(error: BaseException) -> str:
    """The traceback, from the script's own lines on."""
    try:
        return "".join(traceback.format_exception(type(error), error, _scripts_part(error.__traceback__)))
    except BaseException as failure:  # an exception whose own text raises
        return f"{type(error).__name__}, which cannot be told: {type(failure).__name__}\n"


def _scripts_part(trace: TracebackType | None) -> TracebackType | None:
    part = trace
    while part is not None and os.path.dirname(part.tb_frame.f_code.co_filename) == _OURS:
        part = part.tb_next
    return part or trace


def print_line_by_line() -> None:
    """So that what a script prints is told while it runs, and no character stops it."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # None where the descriptor is closed
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)

"""The worker as a process: it leaves signals to its server, and tells of crashes."""

import faulthandler
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import FrameType
from typing import Any

_SERVERS_SIGNALS: Mapping[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}


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


def tell_crashes() -> None:
    """Where the process was when it crashed, to what is stderr now, whatever the script makes of that later."""
    with suppress(OSError):  # it is closed
        faulthandler.enable(os.dup(2))


def print_line_by_line() -> None:
    """So that what a script prints is told while it runs, and no character stops it."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # None where the descriptor is closed
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)

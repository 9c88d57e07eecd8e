"""How a process ended, in words."""

import signal


def signal_name(number: int) -> str:
    """`SIGKILL`; for a signal without a name of its own, a real-time one, `signal 40`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

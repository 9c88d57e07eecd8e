"""`python -m accelserve.deploy.supervise FOLDER HTTP GRPC TELL`: the supervisor's process.

HTTP, GRPC: inherited descriptors of the service's ports. TELL: a pipe, on which it says `ok` once it supervises, or why
it does not.
"""

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

from accelserve.clock import MonotonicClock
from accelserve.deploy.folder import ServiceFolder
from accelserve.deploy.ports import Ports
from accelserve.deploy.supervisor import Supervisor
from accelserve.errors import ScoringError
from accelserve.observability.logs import configure_logging

OK = b"ok"


def main(folder: Path, http: int, grpc: int, tell: int) -> None:
    """In a child, so that whoever started this has no process to wait for; in a session of its own."""
    if os.fork():
        os._exit(0)
    os.setsid()
    configure_logging(json=False, level="info")
    service = ServiceFolder(folder)
    with open(tell, "wb", buffering=0) as teller:
        try:
            lock = service.take_lock()
            if lock is None:
                teller.write(f'the service "{service.name}" has a supervisor already'.encode())
                return
            ports = Ports(socket.socket(fileno=http), socket.socket(fileno=grpc))
            supervisor = Supervisor(service, lock, ports, MonotonicClock())
        except (OSError, ScoringError) as error:
            teller.write(str(error).encode())
            return

        def begun() -> None:
            with suppress(OSError):  # whoever started it was killed in between; it goes on
                teller.write(OK)
            teller.close()

        supervisor.run(begun)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))

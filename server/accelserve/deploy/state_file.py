"""The state file: what a supervisor tells of its service."""

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from accelserve.backends.lease import boot_id
from accelserve.clock import Clock
from accelserve.deploy.folder import replace_soon
from accelserve.deploy.states import ServiceView, State, view_as_json

logger = logging.getLogger("accelserve.deploy")

_TELL_NS = 2_000_000_000


class Told:
    """Writes it when something has changed, and every two seconds, so that its age means something."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._state: State | None = None
        self._reason = ""
        self._since = ""
        self._key: object = None
        self._written_ns = 0

    def tell(self, view: ServiceView, ended: bool = False) -> None:
        now_ns = self._clock.now_ns()
        key = (view.state, view.reason, view.revision, view.wanted, view.refused, len(view.replicas), ended)
        if key == self._key and now_ns - self._written_ns < _TELL_NS:
            return
        if view.state is not self._state:
            self._since = datetime.now(UTC).isoformat(timespec="seconds")
        if (view.state, view.reason) != (self._state, self._reason):
            logger.info("%s: %s", view.state.value, view.reason)
        self._state, self._reason, self._written_ns = view.state, view.reason, now_ns
        about = {"supervisor": os.getpid(), "boot_id": boot_id(), "told_ns": now_ns, "since": self._since}
        document = {**about, "ended": ended, "view": view_as_json(view)}
        try:
            replace_soon(self._path, json.dumps(document).encode())
            self._key = key
        except OSError as error:  # a full disk: the service goes on, and the state's age shows
            if self._key is not None:
                logger.warning("the state cannot be written: %s", error)
            self._key = None

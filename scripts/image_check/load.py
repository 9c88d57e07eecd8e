"""Clients that ask for as long as the server lets them connect, and keep the books."""

import http.client
import json
import multiprocessing
import select
from collections import Counter

ANSWERED, REFUSED = "answered", "refused to connect"
# The server closed a connection on which nothing had been asked yet: nothing is lost, and the client opens another.
UNASKED = "closed unasked"
FINE = frozenset({ANSWERED, REFUSED, UNASKED})
_PATIENCE_S = 30.0
_SPAWN = multiprocessing.get_context("spawn")


class LoadClient:
    """Asks on a kept connection, follows `Connection: close`, ends when nobody listens any more.

    A process of its own: in a thread that waits for its turn, a connection is asked long after it was opened.
    """

    def __init__(self, port: int, picture: bytes, label: str) -> None:
        self._answered = _SPAWN.Value("i", 0)
        self._books = _SPAWN.SimpleQueue()
        self._process = _SPAWN.Process(target=self._run, args=(port, picture, label), daemon=True)

    def start(self) -> None:
        self._process.start()

    @property
    def answered(self) -> int:
        """So far."""
        return int(self._answered.value)

    def outcomes(self) -> Counter[str]:
        """At the end, which is waited for: FINE ones, and what went wrong in words."""
        self._process.join()
        return Counter(self._books.get())

    def _run(self, port: int, picture: bytes, label: str) -> None:
        outcomes: Counter[str] = Counter()
        while self._use_a_connection(port, picture, label, outcomes):
            pass
        self._books.put(dict(outcomes))

    def _use_a_connection(self, port: int, picture: bytes, label: str, outcomes: Counter[str]) -> bool:
        """Whether there may be another one."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)
        try:
            connection.connect()
        except ConnectionRefusedError:
            outcomes[REFUSED] += 1
            return False
        try:
            again = True
            while again:
                outcome, again = _ask(connection, picture, label)
                outcomes[outcome] += 1
                self._answered.value += outcome == ANSWERED
        except (OSError, http.client.HTTPException) as error:
            outcomes[f"lost: {error!r}"] += 1
        finally:
            connection.close()
        return True


def _ask(connection: http.client.HTTPConnection, picture: bytes, label: str) -> tuple[str, bool]:
    """The outcome, and whether the connection may be used again."""
    if select.select([connection.sock], [], [], 0)[0]:  # nothing is awaited, so this is its end
        return UNASKED, False
    connection.request("POST", "/score?top=1", picture)
    answer = connection.getresponse()
    body = answer.read()
    right = answer.status == 200 and json.loads(body)[0]["label"] == label
    return ANSWERED if right else f"wrong: {answer.status}", not answer.will_close

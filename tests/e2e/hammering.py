"""Clients that ask a model without a pause, and remember which version answered."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from server_process import Server, wait_until
from talk import Calls, Connection, ask, instances, row

from accelserve.codecs.tfserving_proto import decode_predict_response

PATIENCE_S = 30.0


@dataclass
class Client:
    """Asks again and again. answers: the version and the factor of each; faults: anything but a right answer."""

    ask_once: Callable[[float], tuple[int, float]]
    close: Callable[[], None] = lambda: None
    answers: list[tuple[int, float]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        number = 0.0
        while not stop.is_set():
            number += 1.0
            try:
                version, value = self.ask_once(number)
            except Exception as error:
                self.faults.append(repr(error))
                return
            self.answers.append((version, value / number))

    @property
    def versions(self) -> list[int]:
        return [version for version, _ in self.answers]


def over_http(server: Server, columns: int = 2) -> Client:
    connection = Connection(server.http_port)

    def ask_once(number: float) -> tuple[int, float]:
        answer = connection.ask("/v1/models/m:predict", instances((number,) * columns))
        assert answer.status == 200, answer.body
        return int(answer.headers["x-accelserve-model"].removeprefix("m:")), answer.json["predictions"][0][0]

    return Client(ask_once, connection.close)


def badly_over_http(server: Server) -> Client:
    """Its requests are wrong, and so is any answer but 400."""
    connection = Connection(server.http_port)

    def ask_once(number: float) -> tuple[int, float]:
        answer = connection.ask("/v1/models/m:predict", b'{"instances": ["a word"]}')
        assert answer.status == 400, answer.body
        return 0, 0.0

    return Client(ask_once, connection.close)


def over_grpc(calls: Calls) -> Client:
    def ask_once(number: float) -> tuple[int, float]:
        response = decode_predict_response(calls.start("m", {"x": row(number, number)}).result())
        return response.version, float(response.outputs["y"][0, 0])

    return Client(ask_once)


@contextmanager
def hammering(clients: Sequence[Client]) -> Iterator[None]:
    """All clients at work, from their first answers on; stopped at the end."""
    stop = threading.Event()
    threads = [threading.Thread(target=client.run, args=(stop,), daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: all(len(client.answers) > 5 or client.faults for client in clients))
        yield
    finally:
        stop.set()
        for thread, client in zip(threads, clients, strict=True):
            thread.join(PATIENCE_S)
            client.close()
            assert not thread.is_alive()


def all_have_seen(clients: Sequence[Client], version: int) -> Callable[[], bool]:
    """The last answers of each are this version's."""
    return lambda: all(client.faults or client.versions[-5:] == [version] * 5 for client in clients)


def states(server: Server, model: str = "m") -> dict[int, str]:
    """Version -> state; {} while there is no such model."""
    answer = ask(server, f"/v1/models/{model}")
    found = answer.json["model_version_status"] if answer.status == 200 else ()
    return {int(status["version"]): status["state"] for status in found}


def is_state(server: Server, **wanted: str) -> Callable[[], bool]:
    """v1="AVAILABLE": asks whether these versions of m are in these states."""
    return lambda: all(states(server).get(int(name[1:])) == state for name, state in wanted.items())

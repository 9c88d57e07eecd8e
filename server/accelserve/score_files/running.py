"""Many files at a time, their outcomes in the order of the files."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Any

from accelserve.errors import ExitCode
from accelserve.score_files.asking import Asker, FileBody, RefusalError, Reply
from accelserve.score_files.files import Found
from accelserve.score_files.ranking import classes_in, ranked
from accelserve.score_files.results import Failed, Outcome, Scored

_AHEAD = 4  # requests that each thread may be ahead of the slowest
_TRIES = 4  # of a request that is told when to come again
_LONGEST_WAIT_S = 10
_RECONNECTS_S = (0.25, 0.5, 1.0, 2.0)  # waits for a server that was there before: it may only be starting again
_GIVE_UP_AFTER = 8  # files in a row that nobody was there to answer


class Work:
    """open_asker: makes one thread's way to answers; it may raise ScoringError. wait: sleeps so many seconds.

    labels: of classes, by index. concurrency: requests at a time. batch: files in one request.
    """

    def __init__(
        self,
        open_asker: Callable[[], Asker],
        *,
        top: int | None,
        labels: Sequence[str] = (),
        concurrency: int = 1,
        batch: int = 1,
        wait: Callable[[float], Any],
    ) -> None:
        self._open_asker = open_asker
        self._top = top
        self._labels = labels
        self._concurrency = concurrency
        self._batch = batch
        self._wait = wait
        self._answers = False  # whether anybody has answered yet
        self._together = True  # until the server turns out to take only one file in a request

    def outcomes(self, files: Iterable[Found]) -> Iterator[Outcome]:
        """One for each file, in order. Ends early after a `Failed` with `ends_with`, since all others would fail so.

        Raises what an asker's opening raises.
        """
        tasks: queue.SimpleQueue[tuple[int, list[Found]] | None] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[int, list[Outcome] | BaseException]] = queue.SimpleQueue()
        threads = [  # daemons: after Ctrl-C nobody waits for an answer
            threading.Thread(target=self._serve, args=(tasks, done), daemon=True) for _ in range(self._concurrency)
        ]
        for thread in threads:
            thread.start()
        hopeless = False
        try:
            for outcome in _until_hopeless(self._in_order(_groups(files, self._batch), tasks, done)):
                hopeless = isinstance(outcome, Failed) and outcome.ends_with is not None
                yield outcome
        finally:
            for _ in threads:
                tasks.put(None)
        if not hopeless:  # all are answered, so the threads only have to close what they opened
            for thread in threads:
                thread.join()

    def _in_order(
        self,
        groups: Iterator[list[Found]],
        tasks: "queue.SimpleQueue[tuple[int, list[Found]] | None]",
        done: "queue.SimpleQueue[tuple[int, list[Outcome] | BaseException]]",
    ) -> Iterator[Outcome]:
        finished: dict[int, list[Outcome]] = {}
        given = 0
        for wanted in count():
            while given < wanted + _AHEAD * self._concurrency and (group := next(groups, None)) is not None:
                tasks.put((given, group))
                given += 1
            if wanted == given:
                return
            while wanted not in finished:
                number, outcomes = done.get()
                if isinstance(outcomes, BaseException):
                    raise outcomes
                finished[number] = outcomes
            yield from finished.pop(wanted)

    def _serve(
        self,
        tasks: "queue.SimpleQueue[tuple[int, list[Found]] | None]",
        done: "queue.SimpleQueue[tuple[int, list[Outcome] | BaseException]]",
    ) -> None:
        asker = None
        try:
            while (task := tasks.get()) is not None:
                asker = asker or self._open_asker()
                done.put((task[0], self._group(asker, task[1])))
        except BaseException as error:  # told in the thread that waits for it
            done.put((-1, error))
        finally:
            if asker is not None:
                asker.close()

    def _group(self, asker: Asker, group: Sequence[Found]) -> list[Outcome]:
        """One bad file spoils no other of its request: they are then asked one by one."""
        read = [_read(found) for found in group]
        bodies = [body for body in read if isinstance(body, FileBody)]
        answered = iter(self._answered(asker, bodies) if bodies else ())
        return [next(answered) if isinstance(one, FileBody) else one for one in read]

    def _answered(self, asker: Asker, bodies: Sequence[FileBody]) -> list[Outcome]:
        if len(bodies) > 1 and not self._together:
            return [outcome for body in bodies for outcome in self._answered(asker, [body])]
        try:
            reply = self._asked(asker, bodies)
        except RefusalError as refusal:
            if len(bodies) == 1 or refusal.ends_with is not None:
                return [_failed(body, refusal) for body in bodies]
        else:
            return [self._scored(body, answer, reply) for body, answer in zip(bodies, reply.answers, strict=True)]
        alone = [outcome for body in bodies for outcome in self._answered(asker, [body])]
        if all(isinstance(outcome, Scored) for outcome in alone):
            self._together = False
        return alone

    def _scored(self, body: FileBody, answer: Any, reply: Reply) -> Scored:
        best = ranked(answer, self._top, self._labels) if self._top is not None else None
        classes = classes_in(answer) if self._labels else None
        return Scored(body.path, best, answer, reply.spent, reply.device, classes)

    def _asked(self, asker: Asker, bodies: Sequence[FileBody]) -> Reply:
        reconnects, tries = iter(_RECONNECTS_S), 1
        while True:
            try:
                reply = asker.ask(bodies)
            except RefusalError as refusal:
                if refusal.unreached and self._answers and (wait_s := next(reconnects, None)) is not None:
                    self._wait(wait_s)
                elif refusal.again_s is not None and not refusal.unreached and tries < _TRIES:
                    tries += 1
                    self._wait(min(refusal.again_s, _LONGEST_WAIT_S))
                else:
                    raise
            else:
                self._answers = True
                return reply


def _groups(files: Iterable[Found], size: int) -> Iterator[list[Found]]:
    """Arrays and other files never in one group: they cannot be one tensor."""
    group: list[Found] = []
    for found in files:
        if group and (len(group) == size or (found.path.suffix == ".npy") != (group[0].path.suffix == ".npy")):
            yield group
            group = []
        group.append(found)
    if group:
        yield group


def _read(found: Found) -> FileBody | Failed:
    if found.problem:
        return Failed(found.path, "UNREADABLE", found.problem)
    try:
        return FileBody(found.path, found.path.read_bytes())
    except OSError as error:
        return Failed(found.path, "UNREADABLE", error.strerror or str(error))
    except MemoryError:
        return Failed(found.path, "UNREADABLE", "larger than the memory that is left")


def _failed(body: FileBody, refusal: RefusalError) -> Failed:
    return Failed(body.path, refusal.status, refusal.message, refusal.ends_with, refusal.unreached)


def _until_hopeless(outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    """A server that was there and is gone may come back; one that never was ends it at once."""
    scored, in_vain = False, 0
    for outcome in outcomes:
        scored = scored or isinstance(outcome, Scored)
        if not isinstance(outcome, Failed) or outcome.ends_with is None:
            in_vain = 0
            yield outcome
            continue
        in_vain += 1
        if outcome.unreached and scored and in_vain < _GIVE_UP_AFTER:
            yield Failed(outcome.path, outcome.status, outcome.message)
            continue
        code = ExitCode.UNFORESEEN if scored else outcome.ends_with
        yield Failed(outcome.path, outcome.status, outcome.message, code, outcome.unreached)
        return

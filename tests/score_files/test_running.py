"""Many files at a time, without any server."""

import itertools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from accelserve.errors import ExitCode, Kind, ScoringError
from accelserve.score_files.asking import FileBody, RefusalError, Reply
from accelserve.score_files.files import Found
from accelserve.score_files.results import Failed, Outcome, Scored, Spent
from accelserve.score_files.running import Work


class FakeAsker:
    """answer: says what comes of the bodies of one request."""

    def __init__(self, answer: Callable[[list[bytes]], list[object]]) -> None:
        self._answer = answer
        self.asked: list[list[bytes]] = []
        self.closed = False

    def ask(self, files: Sequence[FileBody]) -> Reply:
        bodies = [file.body for file in files]
        self.asked.append(bodies)
        return Reply(self._answer(bodies), Spent(1.0))

    def close(self) -> None:
        self.closed = True


def echo(bodies: list[bytes]) -> list[object]:
    return [body.decode() for body in bodies]


def files(folder: Path, *contents: str) -> list[Found]:
    found = []
    for number, content in enumerate(contents):
        (folder / f"{number:05}").write_text(content)
        found.append(Found(folder / f"{number:05}"))
    return found


def outcomes(asker: FakeAsker, found: list[Found], **options: object) -> list[Outcome]:
    waits = options.pop("waits", [])
    return list(Work(lambda: asker, top=None, wait=waits.append, **options).outcomes(found))


def answers(found: list[Outcome]) -> list[object]:
    return [one.answer if isinstance(one, Scored) else one.status for one in found]


def test_outcomes_come_in_the_order_of_the_files_whoever_is_first(tmp_path):
    later = threading.Event()

    def answer(bodies):
        if bodies == [b"0"]:
            assert later.wait(10)
        elif bodies == [b"3"]:
            later.set()
        return echo(bodies)

    found = files(tmp_path, *(str(n) for n in range(8)))
    assert answers(outcomes(FakeAsker(answer), found, concurrency=4)) == [str(n) for n in range(8)]


def test_a_batch_has_so_many_files_and_the_last_one_the_rest(tmp_path):
    asker = FakeAsker(echo)
    assert len(outcomes(asker, files(tmp_path, *"abcde"), batch=2)) == 5
    assert asker.asked == [[b"a", b"b"], [b"c", b"d"], [b"e"]]


def test_one_bad_file_spoils_no_other_of_its_batch(tmp_path):
    def answer(bodies):
        if b"bad" in bodies:
            raise RefusalError("422", "no picture")
        return echo(bodies)

    found = outcomes(FakeAsker(answer), files(tmp_path, "a", "bad", "c"), batch=3)
    assert answers(found) == ["a", "422", "c"]


def test_a_server_that_takes_no_batches_is_asked_for_one_only_once(tmp_path):
    def answer(bodies):
        if len(bodies) > 1:
            raise RefusalError("400", "one picture at a time")
        return echo(bodies)

    asker = FakeAsker(answer)
    assert answers(outcomes(asker, files(tmp_path, *"abcdef"), batch=3)) == list("abcdef")
    assert [len(bodies) for bodies in asker.asked] == [3, 1, 1, 1, 1, 1, 1]


def test_a_file_that_cannot_be_read_is_not_sent_and_the_others_are(tmp_path):
    found = files(tmp_path, "a", "b", "c")
    found[1].path.unlink()
    found.append(Found(tmp_path / "pipe", "not a regular file"))
    asker = FakeAsker(echo)
    assert answers(outcomes(asker, found, batch=4)) == ["a", "UNREADABLE", "c", "UNREADABLE"]
    assert asker.asked == [[b"a", b"c"]]


def test_arrays_and_other_files_do_not_travel_together(tmp_path):
    found = []
    for name in ("a.npy", "b.jpg", "c.npy"):
        (tmp_path / name).write_text(name)
        found.append(Found(tmp_path / name))
    asker = FakeAsker(echo)
    outcomes(asker, found, batch=9)
    assert len(asker.asked) == 3


def test_a_wrong_key_ends_it_after_the_first_file(tmp_path):
    def answer(bodies):
        raise RefusalError("401", "which key?", ExitCode.USAGE)

    found = outcomes(FakeAsker(answer), files(tmp_path, *"abcdefgh"))
    assert [(one.status, one.ends_with) for one in found] == [("401", ExitCode.USAGE)]


def test_nobody_there_from_the_beginning_ends_it_at_once(tmp_path):
    def answer(bodies):
        raise RefusalError("NO CONNECTION", "refused", ExitCode.NOT_FOUND, unreached=True)

    found = outcomes(FakeAsker(answer), files(tmp_path, *"abcdefgh"))
    assert [one.ends_with for one in found] == [ExitCode.NOT_FOUND]


def test_a_server_that_is_started_again_is_waited_for(tmp_path):
    calls = itertools.count()

    def answer(bodies):
        if 1 <= next(calls) <= 3:
            raise RefusalError("NO CONNECTION", "reset", ExitCode.NOT_FOUND, unreached=True)
        return echo(bodies)

    waits: list[float] = []
    assert answers(outcomes(FakeAsker(answer), files(tmp_path, *"abc"), waits=waits)) == ["a", "b", "c"]
    assert waits == [0.25, 0.5, 1.0]


def test_a_server_that_comes_back_late_costs_only_the_files_in_between(tmp_path):
    calls = itertools.count()

    def answer(bodies):
        if 1 <= next(calls) <= 10:
            raise RefusalError("NO CONNECTION", "reset", ExitCode.NOT_FOUND, unreached=True)
        return echo(bodies)

    found = outcomes(FakeAsker(answer), files(tmp_path, *"abcdef"))
    assert answers(found) == ["a", *["NO CONNECTION"] * 2, "d", "e", "f"]
    assert all(one.ends_with is None for one in found if isinstance(one, Failed))


def test_a_server_that_stays_away_is_given_up(tmp_path):
    calls = itertools.count()

    def answer(bodies):
        if next(calls):
            raise RefusalError("NO CONNECTION", "reset", ExitCode.NOT_FOUND, unreached=True)
        return echo(bodies)

    found = outcomes(FakeAsker(answer), files(tmp_path, *map(str, range(1000))))
    assert len(found) == 1 + 8
    assert found[-1].ends_with is ExitCode.UNFORESEEN


def test_who_is_told_to_come_again_does_so_a_few_times(tmp_path):
    calls = itertools.count()

    def answer(bodies):
        if next(calls) < 2:
            raise RefusalError("503", "busy", again_s=100)
        return echo(bodies)

    waits: list[float] = []
    assert answers(outcomes(FakeAsker(answer), files(tmp_path, "a"), waits=waits)) == ["a"]
    assert waits == [10, 10]


def test_a_server_that_is_always_busy_fails_the_file(tmp_path):
    def answer(bodies):
        raise RefusalError("503", "busy", again_s=1)

    asker = FakeAsker(answer)
    assert answers(outcomes(asker, files(tmp_path, "a"))) == ["503"]
    assert len(asker.asked) == 4


def test_what_opening_raises_is_raised_to_the_caller(tmp_path):
    def open_asker():
        raise ScoringError(Kind.PRECONDITION, "init() failed")

    with pytest.raises(ScoringError, match=r"init\(\) failed"):
        list(Work(open_asker, top=None, wait=lambda _: None).outcomes(files(tmp_path, "a")))


def test_an_unforeseen_error_is_raised_and_does_not_hang(tmp_path):
    def answer(bodies):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        outcomes(FakeAsker(answer), files(tmp_path, *"abc"), concurrency=2)


def test_of_ten_thousand_files_few_are_read_ahead(tmp_path):
    (tmp_path / "one").write_text("x")
    given = itertools.count()
    work = Work(lambda: FakeAsker(echo), top=None, concurrency=3, batch=2, wait=lambda _: None)
    source = (Found(tmp_path / "one") for _ in range(10_000) if next(given) >= 0)
    found = work.outcomes(source)
    next(found)
    assert next(given) <= 2 * (4 * 3 + 1) + 1
    assert sum(1 for _ in found) == 9_999

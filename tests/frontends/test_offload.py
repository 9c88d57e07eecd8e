"""Large work on other threads: what comes back, what is left behind, what is refused."""

import asyncio
import gc
import threading
from contextlib import contextmanager

import pytest

from accelserve.errors import Kind, ScoringError
from accelserve.frontends.offload import Offload

PATIENCE_S = 10.0


@contextmanager
def offload():
    pool = Offload(threads=2)
    try:
        yield pool
    finally:
        pool.close()


def test_work_is_done_on_another_thread():
    async def main(pool):
        return await pool.run(lambda a, b: (threading.current_thread(), a, b), 1, b=2)

    with offload() as pool:
        thread, *arguments = asyncio.run(main(pool))
    assert thread is not threading.main_thread()
    assert arguments == [1, 2]


def test_a_coroutine_that_no_task_drives_waits_for_its_work_too():
    """As HTTP's fast lane drives its handlers: with `send`, again each time that the awaited future is done."""

    async def main(pool):
        answered = asyncio.get_running_loop().create_future()
        handler = pool.run(threading.get_ident)

        def resume(_: object) -> None:
            with pytest.raises(StopIteration) as ended:
                handler.send(None)
            answered.set_result(ended.value.value)

        def start() -> None:
            assert asyncio.current_task() is None
            awaited = handler.send(None)
            awaited._asyncio_future_blocking = False
            awaited.add_done_callback(resume)

        asyncio.get_running_loop().call_soon(start)
        return await answered

    with offload() as pool:
        assert asyncio.run(main(pool)) != threading.get_ident()


def fail(kind: Kind, document: list[int]) -> None:
    try:
        raise KeyError(document)
    except KeyError as error:
        raise ScoringError(kind, "wrong", reason="mine", retry_after_s=3) from error


def told(kind: Kind) -> ScoringError:
    async def main(pool):
        with pytest.raises(ScoringError) as caught:
            await pool.run(fail, kind, [1])
        return caught.value

    with offload() as pool:
        return asyncio.run(main(pool))


def test_an_error_comes_back_without_the_document_that_it_is_about():
    error = told(Kind.INVALID)
    assert (error.kind, error.message, error.reason, error.retry_after_s) == (Kind.INVALID, "wrong", "mine", 3)
    assert error.__cause__ is error.__context__ is None
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert "fail" not in frames


def test_an_error_of_ours_keeps_its_origin_for_the_log():
    assert isinstance(told(Kind.INTERNAL).__cause__, KeyError)


def test_the_collector_rests_while_any_work_goes_on_and_no_longer():
    entered, leave = threading.Event(), threading.Event()

    def long() -> bool:
        entered.set()
        assert leave.wait(PATIENCE_S)
        return gc.isenabled()

    async def main(pool):
        first = asyncio.create_task(pool.run(long))
        await asyncio.to_thread(entered.wait, PATIENCE_S)
        during = [await pool.run(gc.isenabled), gc.isenabled()]
        leave.set()
        return [*during, await first]

    assert gc.isenabled()
    with offload() as pool:
        assert asyncio.run(main(pool)) == [False, False, False]
    assert gc.isenabled()


def test_the_collector_comes_back_after_an_error():
    told(Kind.INVALID)
    assert gc.isenabled()


def test_more_than_can_wait_is_refused_with_its_reason_and_the_rest_is_done():
    leave = threading.Event()

    async def main(pool):
        waiting = [asyncio.create_task(pool.run(leave.wait, PATIENCE_S)) for _ in range(256)]
        await asyncio.sleep(0)
        with pytest.raises(ScoringError) as caught:
            await pool.run(int)
        leave.set()
        assert all(await asyncio.gather(*waiting))
        assert await pool.run(int) == 0
        return caught.value

    with offload() as pool:
        error = asyncio.run(main(pool))
    assert (error.kind, error.reason, error.retry_after_s) == (Kind.OVERLOADED, "decode_queue_full", 1)


def test_work_whose_caller_left_is_not_begun():
    leave, begun = threading.Event(), []

    async def main(pool):
        busy = [asyncio.create_task(pool.run(leave.wait, PATIENCE_S)) for _ in range(2)]
        left = asyncio.create_task(pool.run(begun.append, 1))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.wait([left])
        leave.set()
        await asyncio.gather(*busy)
        await pool.run(int)  # whatever was queued before has been looked at

    with offload() as pool:
        asyncio.run(main(pool))
    assert begun == []

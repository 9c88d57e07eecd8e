"""Waiting for a ticket: by an errand, by a task, by what asyncio has."""

import asyncio
import gc
import weakref

import pytest

from accelserve.ticket import Errand, Ticket


class Told(Errand):
    __slots__ = ("ends",)

    def __init__(self):
        super().__init__()
        self.ends = []

    def returned(self, value):
        self.ends.append(value)

    def raised(self, error):
        self.ends.append(repr(error))


class Watched(Ticket):
    __slots__ = ("__weakref__", "times")

    def __init__(self):
        super().__init__(asyncio.get_running_loop())
        self.times = 0

    def withdrawn(self):
        self.times += 1


async def answer_of(ticket):
    return await ticket


def play(scenario):
    asyncio.run(scenario())


def test_an_errand_goes_on_inside_settle():
    async def scenario():
        ticket, errand = Watched(), Told()
        errand.run(answer_of(ticket))
        assert (errand.ends, ticket.done()) == ([], False)
        ticket.settle(7)
        assert (errand.ends, ticket.done(), ticket.times) == ([7], True, 0)

    play(scenario)


def test_an_errand_is_told_the_error_inside_fail():
    async def scenario():
        ticket, errand = Watched(), Told()
        errand.run(answer_of(ticket))
        ticket.fail(ValueError("no"))
        assert (errand.ends, ticket.times, ticket.cancelled()) == (["ValueError('no')"], 1, False)

    play(scenario)


def test_an_errand_that_is_cancelled_withdraws_its_ticket_and_is_told_nothing():
    async def scenario():
        ticket, errand = Watched(), Told()
        errand.run(answer_of(ticket))
        errand.cancel()
        assert (errand.ends, ticket.times, ticket.cancelled(), ticket.cancel()) == ([], 1, True, False)

    play(scenario)


def test_a_ticket_that_is_settled_before_is_not_waited_for():
    async def scenario():
        ticket, errand = Watched(), Told()
        ticket.settle(7)
        errand.run(answer_of(ticket))
        assert errand.ends == [7]
        assert await ticket == 7

    play(scenario)


def test_a_task_waits_as_for_a_future():
    async def scenario():
        tickets = [Watched() for _ in range(3)]
        tasks = [asyncio.create_task(answer_of(ticket)) for ticket in tickets]
        await asyncio.sleep(0)
        tickets[0].settle(7)
        tickets[1].fail(ValueError("no"))
        tasks[2].cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(end) for end in ends] == [int, ValueError, asyncio.CancelledError]
        assert [ticket.times for ticket in tickets] == [0, 1, 1]

    play(scenario)


def test_what_asyncio_has_for_futures_takes_tickets():
    async def scenario():
        tickets = [Watched() for _ in range(3)]
        both = asyncio.gather(*tickets, return_exceptions=True)
        tickets[0].settle(1)
        tickets[1].fail(ValueError("no"))
        tickets[2].cancel()
        assert [type(end) for end in await both] == [int, ValueError, asyncio.CancelledError]
        late = Watched()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(late, 0.001)
        assert late.cancelled()

    play(scenario)


def test_callbacks_are_called_once_and_may_be_removed():
    async def scenario():
        called, ticket = [], Watched()
        ticket.add_done_callback(called.append)
        ticket.add_done_callback(print)
        assert ticket.remove_done_callback(print) == 1
        ticket.settle(7)
        assert called == []
        await asyncio.sleep(0)
        assert called == [ticket]
        ticket.add_done_callback(called.append)
        await asyncio.sleep(0)
        assert called == [ticket, ticket]

    play(scenario)


def test_a_ticket_that_is_not_done_has_no_result():
    async def scenario():
        ticket = Watched()
        for ask in (ticket.result, ticket.exception):
            with pytest.raises(asyncio.InvalidStateError):
                ask()
        ticket.fail(ValueError("no"))
        assert repr(ticket.exception()) == "ValueError('no')"

    play(scenario)


@pytest.mark.parametrize("by_task", [False, True])
def test_an_error_that_was_raised_keeps_no_ticket_alive(by_task):
    async def waits(ticket):
        try:
            return await ticket
        except ValueError:
            return "caught"

    async def scenario():
        ticket, errand = Watched(), Told()
        watch = weakref.ref(ticket)
        task = asyncio.create_task(waits(ticket)) if by_task else errand.run(waits(ticket))
        await asyncio.sleep(0)
        gc.collect()
        gc.disable()
        try:
            ticket.fail(ValueError("no"))
            if task is not None:
                assert await task == "caught"
            del ticket, task, errand
            assert watch() is None
        finally:
            gc.enable()

    play(scenario)

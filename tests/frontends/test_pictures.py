"""The decode pool: a bounded queue before the models' queues, without sockets."""

import asyncio
import gc
import threading
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from accelserve.backends.base import DecodedInput
from accelserve.batching.policy import BatchPolicy
from accelserve.builtin import pictures as builtin_pictures
from accelserve.codecs.images import decode_picture
from accelserve.errors import Kind, ScoringError
from accelserve.frontends import pictures as module
from accelserve.frontends.pictures import DecodeLimits, PictureDecoder
from accelserve.models.pixels import PixelPath, PixelPaths
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import BY_NAME, Signature, TensorSpec

UINT8 = BY_NAME["uint8"]
SMALL = Preprocessing((4, 4))
UNFORESEEN = {b"memory": MemoryError(), b"stop": StopIteration(), b"exit": SystemExit(3)}
JPEG = builtin_pictures()[0][0].read_bytes()


class Clock:
    """Moved by hand."""

    def __init__(self):
        self.ns = 0

    def now_ns(self):
        return self.ns


def run(main, threads=2, **limits):
    async def with_decoder():
        clock = Clock()
        decoder = PictureDecoder(threads, DecodeLimits(10**7, **limits), clock)
        try:
            await main(decoder, clock)
            assert decoder.waiting == 0
        finally:
            decoder.close()

    asyncio.run(with_decoder())


async def refused(kind, waiting):
    with pytest.raises(ScoringError) as caught:
        await waiting
    assert caught.value.kind is kind
    return caught.value


@pytest.fixture
def gate(monkeypatch):
    """Decoding waits for `open`; `decoded` holds what was decoded, `begun` is set when somebody is at it."""
    gate = SimpleNamespace(open=threading.Event(), begun=threading.Event(), decoded=[])

    def decode(data, preprocessing, max_pixels, *, dtype, decode_jpeg):
        gate.begun.set()
        assert gate.open.wait(10)
        gate.decoded.append(data)
        if data == b"bad":
            raise ScoringError(Kind.UNDECODABLE, "bad picture")
        if data in UNFORESEEN:
            raise UNFORESEEN[data]
        return np.full((4, 4, 3), len(data), np.uint8)

    monkeypatch.setattr(module, "decode_picture", decode)
    yield gate
    gate.open.set()


def test_pictures_come_back_as_rows_in_their_order(gate):
    async def main(decoder, _):
        gate.open.set()
        rows = await decoder.decode([b"x" * n for n in range(1, 8)], SMALL, UINT8)
        assert rows.shape == (7, 4, 4, 3)
        assert rows[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5, 6, 7]
        assert (await decoder.decode([b"x"], SMALL, UINT8)).shape == (1, 4, 4, 3)

    run(main)


def test_a_real_picture_is_decoded():
    async def main(decoder, _):
        assert (await decoder.decode([JPEG, JPEG], SMALL, UINT8)).shape == (2, 4, 4, 3)

    run(main)


def test_the_rest_of_a_request_is_not_decoded_after_its_first_fault(gate):
    async def main(decoder, _):
        gate.open.set()
        await refused(Kind.UNDECODABLE, decoder.decode([b"bad", *[b"good"] * 1000], SMALL, UINT8))
        assert len(gate.decoded) < 1000

    run(main, threads=1)


def test_a_full_pool_refuses_the_next_request_at_once(gate):
    async def main(decoder, _):
        first = asyncio.create_task(decoder.decode([b"x"] * 3, SMALL, UINT8))
        await asyncio.to_thread(gate.begun.wait, 10)
        error = await refused(Kind.OVERLOADED, decoder.decode([b"y"] * 2, SMALL, UINT8))
        assert (error.reason, error.retry_after_s) == ("decode_queue_full", 1)
        assert [gauge.value for gauge in decoder.gauges()] == [3]
        gate.open.set()
        assert len(await first) == 3
        assert len(await decoder.decode([b"y"] * 2, SMALL, UINT8)) == 2

    run(main, most_pictures=4)


def test_bytes_are_bounded_too_and_what_is_alone_is_always_accepted(gate):
    async def main(decoder, _):
        first = asyncio.create_task(decoder.decode([b"x" * 100], SMALL, UINT8))
        await asyncio.to_thread(gate.begun.wait, 10)
        await refused(Kind.OVERLOADED, decoder.decode([b"y"], SMALL, UINT8))
        gate.open.set()
        await first

    run(main, most_bytes=50)


def test_a_picture_whose_deadline_has_passed_is_not_decoded(gate):
    async def main(decoder, clock):
        gate.open.set()
        clock.ns = 100
        await refused(Kind.DEADLINE, decoder.decode([b"x"], SMALL, UINT8, deadline_ns=100))
        assert gate.decoded == []

    run(main)


def test_a_client_that_leaves_stops_its_decoding(gate):
    async def main(decoder, _):
        task = asyncio.create_task(decoder.decode([b"x"] * 50, SMALL, UINT8))
        await asyncio.to_thread(gate.begun.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert decoder.waiting == 0
        gate.open.set()
        await decoder.decode([b"after"], SMALL, UINT8)
        assert len(gate.decoded) < 50

    run(main, threads=1)


def test_a_broken_picture_fails_only_its_own_request(gate):
    async def main(decoder, _):
        gate.open.set()
        asked = [decoder.decode([data], SMALL, UINT8) for data in (b"a", b"bad", b"bb")]
        first, broken, last = await asyncio.gather(*asked, return_exceptions=True)
        assert (first[0, 0, 0, 0], last[0, 0, 0, 0]) == (1, 2)
        assert broken.kind is Kind.UNDECODABLE

    run(main, threads=1)


@pytest.mark.parametrize("data", UNFORESEEN)
def test_no_failure_of_a_decoder_ends_its_thread_or_the_loop(gate, data):
    async def main(decoder, _):
        gate.open.set()
        error = await refused(Kind.INTERNAL, decoder.decode([data], SMALL, UINT8))
        assert isinstance(error.__cause__, type(UNFORESEEN[data]))
        assert len(await decoder.decode([b"after"], SMALL, UINT8)) == 1

    run(main, threads=1)


def test_an_error_keeps_neither_its_picture_nor_itself_in_memory(gate):
    class Body:
        """Bytes cannot be watched."""

        def __len__(self):
            return 3

        def __eq__(self, other):
            return other == b"bad"

        __hash__ = object.__hash__

    async def main(decoder, _):
        gate.open.set()
        body = Body()
        watched = weakref.ref(body)
        with pytest.raises(ScoringError):
            await decoder.decode([body], SMALL, UINT8)
        gate.decoded.clear()
        del body
        await asyncio.sleep(0)  # the loop lets go of the future whose callback this is
        decoder.close()
        decoder._pool._threads[0].join(10)  # it may not have let go of its job yet
        assert watched() is None

    gc.disable()
    try:
        run(main, threads=1)
    finally:
        gc.enable()


def test_a_coroutine_driven_by_hand_gets_its_rows_and_may_be_closed_early(gate):
    """As the fast lane does it: no task anywhere."""

    async def main(decoder, _):
        one, left = (decoder.decode([data], SMALL, UINT8) for data in (b"one", b"left"))
        waits_for = one.send(None)
        left.send(None)
        left.close()
        assert decoder.waiting == 1
        gate.open.set()
        await asyncio.wait([waits_for])
        with pytest.raises(StopIteration) as finished:
            one.send(None)
        assert finished.value.value.shape == (1, 4, 4, 3)
        await decoder.decode([b"after"], SMALL, UINT8)
        assert gate.decoded == [b"one", b"after"]

    run(main, threads=1)


def test_closing_lets_those_go_whose_pictures_were_not_begun(gate):
    async def main(decoder, _):
        first = asyncio.create_task(decoder.decode([b"first"], SMALL, UINT8))
        await asyncio.to_thread(gate.begun.wait, 10)
        second = asyncio.create_task(decoder.decode([b"second"], SMALL, UINT8))
        await asyncio.sleep(0)
        decoder.close()
        await refused(Kind.DRAINING, second)
        await refused(Kind.DRAINING, decoder.decode([b"third"], SMALL, UINT8))
        gate.open.set()
        assert len(await first) == 1
        assert gate.decoded == [b"first"]

    run(main, threads=1)


def servable(max_queue_bytes=2**20):
    return SimpleNamespace(
        model=SimpleNamespace(
            preprocessing={"serving_default": SMALL},
            pixels=PixelPaths(),
            policy=BatchPolicy(max_queue_bytes=max_queue_bytes),
        )
    )


def servable_on_device(max_queue_bytes=2**20):
    """Of a model of float planes, whose device normalises."""
    found = servable(max_queue_bytes)
    steps = Preprocessing((4, 4), layout="NCHW", mean=(127.5,), scale=(1 / 127.5,))
    found.model.preprocessing = {"serving_default": steps}
    taken = Signature("serving_default of pixels", {"image": TensorSpec("image", UINT8, (-1, 4, 4, 3), "image")}, {})
    found.model.pixels = PixelPaths({"serving_default": PixelPath(taken, steps.host_part())})
    return found


def servable_of_strings(only):
    """A model whose pictures the server decodes. only: the model cannot."""
    found = servable()
    rows = Signature("rows", {"image": TensorSpec("image", BY_NAME["float32"], (-1, 4, 4, 3), "Placeholder:0")}, {})
    decoded = DecodedInput(rows, SMALL, 0.0, 0.0, only)
    found.model.pixels = PixelPaths({"serving_default": PixelPath(rows, SMALL)}, {}, {"serving_default": decoded})
    return found


STRINGS = Signature("serving_default", {"image": TensorSpec("image", BY_NAME["string"], (-1,), "Placeholder:0")}, {})
SIGNATURE = Signature("serving_default", {"image": TensorSpec("image", UINT8, (-1, 4, 4, 3), "image")}, {})
FLOAT32 = BY_NAME["float32"]
PLANES = Signature("serving_default", {"image": TensorSpec("image", FLOAT32, (-1, 3, 4, 4), "Placeholder:0")}, {})


def test_strings_for_a_picture_model_are_decoded_and_anything_else_is_left_alone(gate):
    async def main(decoder, _):
        gate.open.set()
        strings = {"image": np.array([b"a", b"bb"], object)}
        inputs, pixels = await decoder.into_inputs(servable(), SIGNATURE, strings, None)
        assert (inputs["image"].shape, pixels) == ((2, 4, 4, 3), False)
        dense = {"image": np.zeros((1, 4, 4, 3), np.uint8)}
        assert await decoder.into_inputs(servable(), SIGNATURE, dense, None) == (dense, False)

    run(main)


def test_where_the_device_normalises_pictures_become_pixels_and_floats_stay_floats():
    async def main(decoder, _):
        strings = {"Placeholder:0": np.array([JPEG, JPEG], object)}
        inputs, pixels = await decoder.into_inputs(servable_on_device(), PLANES, strings, None)
        rows = inputs["Placeholder:0"]  # the client's own word, by which the answer's dialect is chosen
        assert (rows.dtype, rows.shape, pixels) == (np.uint8, (2, 4, 4, 3), True)
        np.testing.assert_array_equal(rows[0], decode_picture(JPEG, SMALL, dtype=UINT8))
        dense = {"image": np.zeros((1, 3, 4, 4), np.float32)}
        assert await decoder.into_inputs(servable_on_device(), PLANES, dense, None) == (dense, False)

    run(main)


def test_pixels_take_a_quarter_of_the_room_that_floats_take(gate):
    room = 2 * 4 * 4 * 3  # two pictures of pixels

    async def main(decoder, _):
        gate.open.set()
        two, three = ({"image": np.full((count,), b"x", object)} for count in (2, 3))
        await decoder.into_inputs(servable_on_device(room), PLANES, two, None)
        error = await refused(Kind.TOO_LARGE, decoder.into_inputs(servable_on_device(room), PLANES, three, None))
        assert "144 bytes" in error.message
        error = await refused(Kind.TOO_LARGE, decoder.into_inputs(servable(room), PLANES, two, None))
        assert "384 bytes" in error.message

    run(main)


@pytest.mark.parametrize("only", [True, False])
def test_decoded_pictures_are_taken_for_strings_where_the_model_has_no_decoder_of_its_own(only):
    async def main(decoder, _):
        model = servable_of_strings(only)
        strings = {"Placeholder": np.array([JPEG], object)}
        inputs, pixels = await decoder.into_inputs(model, STRINGS, strings, None)
        assert (inputs["Placeholder"].dtype, inputs["Placeholder"].shape, pixels) == (np.float32, (1, 4, 4, 3), True)
        dense = {"Placeholder:0": np.zeros((2, 4, 4, 3), np.float32)}
        assert await decoder.into_inputs(model, STRINGS, dense, None) == (dense, only)

    run(main)


def test_a_wrong_name_is_refused_before_its_pictures_are_decoded(gate):
    async def main(decoder, _):
        strings = {"Placeholder_1:0": np.array([b"a"], object)}
        assert await decoder.into_inputs(servable_of_strings(True), STRINGS, strings, None) == (strings, False)
        assert gate.decoded == []

    run(main)


@pytest.mark.parametrize("shape", [(0,), (1, 2)])
def test_strings_of_another_shape_are_refused(shape):
    async def main(decoder, _):
        strings = {"image": np.full(shape, b"x", object)}
        await refused(Kind.INVALID, decoder.into_inputs(servable(), SIGNATURE, strings, None))

    run(main)


def test_more_pictures_than_the_queue_has_room_for_are_refused_before_any_is_decoded(gate):
    async def main(decoder, _):
        strings = {"image": np.full((100_000,), b"x", object)}
        error = await refused(Kind.TOO_LARGE, decoder.into_inputs(servable(), SIGNATURE, strings, None))
        assert "4800000 bytes" in error.message
        assert gate.decoded == []

    run(main)

"""How fast pictures are decoded: the server's pool by its threads, on the CPU and by the GPU's decoder."""

import asyncio
import time
from collections.abc import Iterator

from accelserve.clock import MonotonicClock
from accelserve.codecs.jpeg import JpegDecoder, decode_jpeg
from accelserve.codecs.jpeg_on_gpu import TOLERANCE, check_decoder, open_gpu_decoder
from accelserve.errors import ScoringError
from accelserve.frontends.pictures import DecodeLimits, PictureDecoder
from accelserve.preprocessing import DEFAULT_MAX_PIXELS, Preprocessing
from accelserve.tensors import BY_NAME
from benchmarks.gpu_parts import samples
from benchmarks.gpu_parts.plan import Plan, on_cores
from benchmarks.gpu_parts.results import Row, skipped

WANTED = Preprocessing(size=(224, 224))
SIZES = ((220, 220), (640, 480))  # (width, height) of the stored picture
ASKING = 128


def rows(plan: Plan) -> Iterator[Row]:
    for size in SIZES:
        for threads in thread_counts(plan):
            as_served = threads == plan.decode_threads and size == SIZES[0]
            yield _row(plan, "CPU", size, threads, decode_jpeg, as_served=as_served)
    yield from _on_gpu(plan)


def thread_counts(plan: Plan) -> list[int]:
    """Powers of two up to the server's cores, and what the server takes where nothing is said."""
    cores = len(plan.server_cores)
    return sorted({plan.decode_threads, *(1 << power for power in range(cores.bit_length()) if 1 << power <= cores)})


def _on_gpu(plan: Plan) -> Iterator[Row]:
    if plan.dry_run:
        yield skipped("GPU", "there is no GPU in a dry run")
        return
    try:
        decoder = open_gpu_decoder(int(plan.device.partition(":")[2] or 0))
        for size in SIZES:
            apart = check_decoder(decoder, samples.picture(*size))
            for threads in thread_counts(plan):
                numerics = {"most_apart_of_255": apart, "allowed": TOLERANCE}
                yield _row(plan, "GPU", size, threads, decoder, **numerics)
        yield Row("GPU, left to the CPU", {"pictures": decoder.left_to_cpu})
    except ScoringError as error:
        yield skipped("GPU", error.message)


def _row(plan: Plan, table: str, size: tuple[int, int], threads: int, decode: JpegDecoder, **more: object) -> Row:
    data = samples.picture(*size)
    with on_cores(plan.server_cores):
        every = [asyncio.run(_pool_rate(data, threads, plan.timing_s, decode)) for _ in range(plan.rounds)]
    what = {"picture": f"{size[0]} x {size[1]}", "bytes": len(data), "threads": threads}
    return Row(table, {**what, "images_s": max(every), **more, "rounds": every})


async def _pool_rate(data: bytes, threads: int, seconds: float, decode: JpegDecoder) -> float:
    """Pictures per second through the server's own pool, always with more asked than threads are there."""
    decoder = PictureDecoder(threads, DecodeLimits(DEFAULT_MAX_PIXELS), MonotonicClock(), decode)
    end, done = time.perf_counter() + seconds, 0

    async def ask() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await decoder.decode([data], WANTED, BY_NAME["uint8"])
            done += 1

    began = time.perf_counter()
    try:
        await asyncio.gather(*(ask() for _ in range(ASKING)))
    finally:
        decoder.close()
    return done / (time.perf_counter() - began)

"""The goals of a GPU session, judged from the sections' rows: pass, fail or not measured. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.gpu_parts.results import rows_of

PASS, FAIL, NOT_MEASURED = "pass", "fail", "not measured"
ARITHMETICS = ("tf32", "fp16")
SERVED_MODEL = "resnet50_u8"
LEAST_TENSOR_SHARE = 0.90
LEAST_JPEG_SHARE = 0.85
MOST_EXTRA_MS = 0.5
MIXED_REQUESTS = 10_000
DRY_RUN = "dry run on CPU: the goals hold on a GPU"

Sections = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Goal:
    """what: the issue's words. why: what was compared, or why nothing was."""

    what: str
    wanted: str
    got: str
    verdict: str
    why: str


def judge(sections: Sections, dry_run: bool) -> list[dict[str, str]]:
    """Every goal, in the issue's order, as rows."""
    goals = [judge_one(sections, arithmetic) for judge_one in _SERVED for arithmetic in ARITHMETICS]
    goals += [_memory(sections), _mixes(sections), _correctness(sections), _refusals(sections)]
    if dry_run:
        goals = [Goal(goal.what, goal.wanted, "", NOT_MEASURED, DRY_RUN) for goal in goals]
    return [asdict(goal) for goal in goals]


def best_rate(rows: Iterable[Mapping[str, Any]]) -> float | None:
    """Images per second of the fastest row, host copies included."""
    rates = [row["images_s"] for row in rows if row.get("model") == SERVED_MODEL and not row.get("without_copies")]
    return max(rates, default=None)


def _tensors(sections: Sections, arithmetic: str) -> Goal:
    what, wanted = f"ResNet-50 {arithmetic} by tensors", f">= {LEAST_TENSOR_SHARE:.0%} of the in-process best rate"
    limit = best_rate(rows_of(sections, f"limits-{arithmetic}", "rates"))
    served = _best_served(sections, arithmetic, ("HTTP tensor", "gRPC tensor"))
    return _share(what, wanted, LEAST_TENSOR_SHARE, served, limit, "in-process best", _places(sections, arithmetic))


def _jpeg(sections: Sections, arithmetic: str) -> Goal:
    what = f"ResNet-50 {arithmetic} by JPEG"
    wanted = f">= {LEAST_JPEG_SHARE:.0%} of the smaller of decode limit and GPU limit"
    limits = {
        "decode limit": _decode_limit(sections),
        "GPU limit": best_rate(rows_of(sections, f"limits-{arithmetic}", "rates")),
    }
    known = {name: rate for name, rate in limits.items() if rate is not None}
    name = min(known, key=lambda name: known[name]) if len(known) == len(limits) else ""
    served = _best_served(sections, arithmetic, ("HTTP JPEG",))
    return _share(
        what, wanted, LEAST_JPEG_SHARE, served, known.get(name), name, _places(sections, arithmetic, "decode")
    )


def _latency(sections: Sections, arithmetic: str) -> Goal:
    what, wanted = f"one client's latency, {arithmetic}, tensors", f"<= {MOST_EXTRA_MS} ms above in-process batch 1"
    alone = [
        row["p50_ms"]
        for row in rows_of(sections, f"limits-{arithmetic}", "rates")
        if row["model"] == SERVED_MODEL and row["batch"] == 1 and row["in_flight"] == 1 and not row["without_copies"]
    ]
    served = [row for row in _served(sections, arithmetic) if row["clients"] == 1 and "tensor" in row["protocol"]]
    if not alone or not served:
        return Goal(what, wanted, "", NOT_MEASURED, "one of limits and served was not run")
    if problem := _places(sections, arithmetic):
        return Goal(what, wanted, "", NOT_MEASURED, problem)
    extra = min(row["p50_ms"] for row in served) - min(alone)
    why = f"served p50 {min(row['p50_ms'] for row in served):.2f} ms, in-process p50 {min(alone):.2f} ms"
    return Goal(what, wanted, f"{extra:.2f} ms", PASS if extra <= MOST_EXTRA_MS else FAIL, why)


def _memory(sections: Sections) -> Goal:
    what, wanted = "no device allocation per request after warm-up", "0 MiB more after the requests than before"
    rows = [row for row in rows_of(sections, "memory", "growth") if row.get("of") == "GPU memory"]
    if not rows:
        return Goal(what, wanted, "", NOT_MEASURED, "the GPU's memory was not read")
    grown = max(row["grown_mib"] for row in rows)
    requests = min(row["requests"] for row in rows)
    return Goal(what, wanted, f"{grown:.1f} MiB", PASS if grown <= 0 else FAIL, f"{requests} requests of mixed sizes")


def _mixes(sections: Sections) -> Goal:
    what, wanted = "random batch mixes equal to unbatched", f"{MIXED_REQUESTS} requests within tolerance"
    rows = rows_of(sections, "scheduler", "mixes")
    asked, wrong = sum(row["requests"] for row in rows), sum(row["wrong"] for row in rows)
    if not rows:
        return Goal(what, wanted, "", NOT_MEASURED, "the section was not run")
    verdict = FAIL if wrong else PASS if asked >= MIXED_REQUESTS else NOT_MEASURED
    return Goal(what, wanted, f"{asked} requests, {wrong} wrong", verdict, "through the server's own scheduler")


def _correctness(sections: Sections) -> Goal:
    what, wanted = "every model equals fp32 on the CPU", "each within the tolerance of its arithmetic"
    rows = rows_of(sections, "correctness", "errors")
    if not rows:
        return Goal(what, wanted, "", NOT_MEASURED, "the section was not run")
    wrong = [f"{row['model']} {row['arithmetic']}" for row in rows if not row["within"]]
    got = f"{len(rows)} comparisons, {len(wrong)} outside"
    return Goal(what, wanted, got, FAIL if wrong else PASS, ", ".join(wrong) or "batched and not")


def _refusals(sections: Sections) -> Goal:
    what, wanted = "refusals on a GPU host", "each as the contract says"
    rows = rows_of(sections, "refusals", "refusals")
    if not rows:
        return Goal(what, wanted, "", NOT_MEASURED, "the section was not run")
    wrong = [row["case"] for row in rows if not row["as_wanted"]]
    return Goal(what, wanted, f"{len(rows) - len(wrong)} of {len(rows)}", FAIL if wrong else PASS, ", ".join(wrong))


_SERVED = (_tensors, _jpeg, _latency)


def _share(
    what: str, wanted: str, least: float, served: Mapping[str, Any] | None, limit: float | None, of: str, problem: str
) -> Goal:
    if served is None or not limit:
        return Goal(what, wanted, "", NOT_MEASURED, "one of what is compared was not measured")
    if problem:
        return Goal(what, wanted, "", NOT_MEASURED, problem)
    share = served["images_s"] / limit
    why = f"{served['protocol']}, {served['clients']} clients: {served['images_s']:.0f}/s of {limit:.0f}/s ({of})"
    return Goal(what, wanted, f"{share:.1%}", PASS if share >= least and not served["errors"] else FAIL, why)


def _served(sections: Sections, arithmetic: str) -> list[dict[str, Any]]:
    rows = rows_of(sections, f"served-{arithmetic}", "rates")
    return [row for row in rows if row["model"] == SERVED_MODEL]


def _best_served(sections: Sections, arithmetic: str, protocols: Sequence[str]) -> dict[str, Any] | None:
    rows = [row for row in _served(sections, arithmetic) if row["protocol"] in protocols]
    return max(rows, key=lambda row: row["images_s"], default=None)


def _decode_limit(sections: Sections) -> float | None:
    """Of the pool with as many threads as the server has."""
    rates = [row["images_s"] for row in rows_of(sections, "decode", "CPU") if row.get("as_served")]
    return max(rates, default=None)


def _places(sections: Sections, arithmetic: str, *others: str) -> str:
    """Why the sections cannot be compared; empty when all were run on one device."""
    names = (f"limits-{arithmetic}", f"served-{arithmetic}", *others)
    devices = sorted({sections[name]["device"] for name in names if name in sections})
    return f"measured on different devices: {', '.join(devices)}" if len(devices) > 1 else ""


def ratios(sections: Sections) -> list[dict[str, Any]]:
    """Each served point beside what the process could do at best: for pictures the smaller of GPU and decoder."""
    return [row for arithmetic in ARITHMETICS for row in _ratios(sections, arithmetic)]


def _ratios(sections: Sections, arithmetic: str) -> Iterator[dict[str, Any]]:
    limits = rows_of(sections, f"limits-{arithmetic}", "rates")
    for row in rows_of(sections, f"served-{arithmetic}", "rates"):
        model = [limit for limit in limits if limit["model"] == row["model"] and not limit["without_copies"]]
        best = max((limit["images_s"] for limit in model), default=None)
        ours = max((limit["images_s"] for limit in model if limit["way"].startswith("accelserve")), default=None)
        alone = min((limit["p50_ms"] for limit in model if limit["batch"] == limit["in_flight"] == 1), default=None)
        if row["protocol"] == "HTTP JPEG" and best and (decoded := _decode_limit(sections)):
            best = min(best, decoded)
        yield {
            **{key: row[key] for key in ("arithmetic", "model", "protocol", "clients", "images_s")},
            "limit_images_s": best,
            "of_the_limit": best and row["images_s"] / best,
            "of_our_session": ours and row["images_s"] / ours,
            "above_in_process_batch_1_ms": row["p50_ms"] - alone if alone and row["clients"] == 1 else None,
        }

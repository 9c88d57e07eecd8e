"""`accelserve verify`: does a model answer as another does, and its rows in a batch as alone?"""

import argparse
import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from accelserve.commands.convert import add_comparison
from accelserve.commands.parsing import MODEL_HELP, Commands, add_backends, add_json, allowed_backends, argument
from accelserve.config_parsers import parse_device
from accelserve.errors import ExitCode


def add(commands: Commands) -> None:
    verify = commands.add_parser(
        "verify",
        help="compare a model's answers with another's, or its rows in a batch with the same rows alone",
        description="Load a model, ask it, and compare output by output: with --against, with what the other model "
        "answers on the CPU; without, each row in a batch with the same row alone. Ends with 3 when they differ.",
    )
    verify.add_argument("model", metavar="MODEL", type=Path, help=MODEL_HELP)
    verify.add_argument(
        "--against", metavar="OTHER", type=Path, help="the model that is right, for example the original"
    )
    verify.add_argument(
        "--device", type=argument(parse_device), default="cpu", metavar="DEVICE", help="of MODEL (default: cpu)"
    )
    verify.add_argument("--batch", type=argument(_rows), default=3, metavar="N", help="rows to ask with (default: 3)")
    add_comparison(verify, "1e-4; a copy in fp16 wants 0.02")
    add_backends(verify)
    add_json(verify)
    verify.set_defaults(run=_verify)


def _rows(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise ValueError("want a number of rows from 1 to 4096")
    return int(text)


def _verify(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.convert.compare import TOLERANCE
    from accelserve.convert.report import comparison_lines
    from accelserve.convert.verification import opened, verify
    from accelserve.loaders import build_loader

    loader = build_loader(backends=allowed_backends(parsed))
    tolerance = TOLERANCE if parsed.tolerance is None else parsed.tolerance
    with ExitStack() as stack:
        session = stack.enter_context(opened(loader, parsed.model, parsed.device))
        other = stack.enter_context(opened(loader, parsed.against, "cpu")) if parsed.against else session
        comparisons = verify(session, other, parsed.sample, parsed.batch, tolerance)
        device = session.device.id
    good = all(c.equal and c.rows_independent is not False for c in comparisons)
    told = [asdict(comparison) for comparison in comparisons]
    if parsed.json:
        names = {"model": str(parsed.model), "against": str(parsed.against or parsed.model), "device": device}
        print(json.dumps({**names, "tolerance": tolerance, "equal": good, "comparisons": told}, indent=2))
    else:
        print(f"{parsed.model} on {device} against {parsed.against or 'itself'}")
        print("\n".join(comparison_lines(told, tolerance)))
    return ExitCode.OK if good else ExitCode.LOAD_FAILED

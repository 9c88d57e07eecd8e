"""`accelserve score`: files and folders, scored by a server or by an entry script."""

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from accelserve.commands.parsing import Commands, add_json, argument
from accelserve.commands.progress import CountBar
from accelserve.errors import ExitCode, Kind, ScoringError

if TYPE_CHECKING:
    from accelserve.score_files.files import Found
    from accelserve.score_files.results import Failed, Outcome
    from accelserve.score_files.telling import Tally

_TOP = 5  # as the loop of the original's documents

_EPILOG = """\
examples:
  accelserve score resnet50 cat.jpg                                        a service of `accelserve deploy`
  accelserve score --url http://127.0.0.1:8501 cat.jpg                     the five best classes
  accelserve score --url http://127.0.0.1:8501 pictures/ --concurrency 8   a folder, eight requests at a time
  accelserve score --url 127.0.0.1:8500 --grpc pictures/ --batch 16 --input images --output scores
  accelserve score --url https://host/api/v1/service/resnet/score --key-file key.txt cat.jpg --labels classes.txt
  accelserve score --script score.py cat.jpg                               the entry script alone, without a server

A file goes to the server as it is, which reads from its bytes what it is. Over gRPC it is a string tensor, and a .npy
file the array that it holds; over HTTP several files, or an --input, make a body of JSON. The key is read from
--key-file, else of a local service from its own folder, else from ACCELSERVE_KEY, and never from the command line,
which others can see.
The progress goes to standard error, the answers to standard output. One bad file costs itself alone.

exit codes: 0 all files were scored; 1 some were not, or Ctrl-C; 2 usage, or the key is refused; 3 the entry script
cannot be loaded; 4 no such file, service or model, or nobody answers at the address
"""


def add(commands: Commands) -> None:
    score = commands.add_parser(
        "score",
        mixed=True,
        help="score files or folders with a server or an entry script",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    score.add_argument(
        "files",
        nargs="+",
        metavar="[SERVICE] FILE",
        help="files, and folders with all that is in them; without --url and --script first a local service's name",
    )
    whom = score.add_argument_group("whom to ask")
    whom.add_argument("--url", metavar="URL", help="a server's or a service's address; with --grpc HOST:PORT")
    whom.add_argument(
        "--grpc", action="store_true", help="TF Serving's Predict instead of HTTP (also --url grpc:// or grpcs://)"
    )
    whom.add_argument("--script", type=Path, metavar="SCORE.PY", help="run this entry script, without a server")
    whom.add_argument(
        "--key-file",
        type=Path,
        metavar="FILE",
        help="holds the key (default: a local service's own, else ACCELSERVE_KEY)",
    )
    whom.add_argument("--tls-roots", type=Path, metavar="FILE", help="who may sign the server's certificate (PEM)")
    whom.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="our own certificate, where the server asks for one"
    )
    whom.add_argument("--tls-key", type=Path, metavar="FILE", help="its key")
    what = score.add_argument_group("what to ask")
    what.add_argument("--model", default="", metavar="NAME", help="of the server's models (default: its own default)")
    what.add_argument("--input", default="", metavar="NAME", help="the input's name (default: the only one)")
    what.add_argument("--output", default="", metavar="NAME", help="this output alone (default: all)")
    what.add_argument(
        "--match", action="append", default=[], metavar="PATTERN", help="of folders only such names: *.jpg"
    )
    what.add_argument(
        "--batch", type=argument(_count), default=1, metavar="N", help="files in one request (default: 1)"
    )
    what.add_argument(
        "--concurrency", type=argument(_count), metavar="N", help="requests at a time (default: 4; of a script 1)"
    )
    what.add_argument(
        "--timeout", type=argument(_seconds), default=30.0, metavar="SECONDS", help="for one request (default: 30)"
    )
    told = score.add_argument_group("what is told")
    told.add_argument(
        "--top", type=argument(_top), default=_TOP, metavar="K", help="the K best classes; 0: the answer (default: 5)"
    )
    told.add_argument("--labels", type=Path, metavar="FILE", help="the classes' names, one a line or a JSON array")
    add_json(score)
    script = score.add_argument_group("for --script")
    script.add_argument(
        "--model-files",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="what Model.get_model_path(NAME) finds; may be repeated",
    )
    script.add_argument("--legacy-tensorflow", action="store_true", help="`tensorflow` is TensorFlow 1 for the script")
    score.set_defaults(run=_score)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 1024:
        raise ValueError("want a whole number from 1 to 1024")
    return int(text)


def _top(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise ValueError("want a whole number, 0 for the answer as it is")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= 86400:
        raise ValueError("want a number of seconds above 0, at most a day")
    return seconds


def _score(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.commands.score_whom import opener
    from accelserve.score_files.files import found_files
    from accelserve.score_files.ranking import read_labels
    from accelserve.score_files.running import Work

    open_asker = opener(parsed, os.environ)
    labels = read_labels(parsed.labels) if parsed.labels else ()
    files = list(found_files([Path(file) for file in parsed.files], parsed.match))
    if not files:
        raise ScoringError(Kind.NOT_FOUND, f"no files in {', '.join(parsed.files)}")
    work = Work(
        open_asker,
        top=parsed.top or None,
        labels=labels,
        concurrency=parsed.concurrency or (1 if parsed.script else 4),
        batch=parsed.batch,
        wait=time.sleep,
    )
    return _run(parsed, files, work.outcomes(files), len(labels))


def _run(parsed: argparse.Namespace, files: "list[Found]", outcomes: "Iterable[Outcome]", labels: int = 0) -> ExitCode:
    from accelserve.score_files.results import Failed
    from accelserve.score_files.telling import (
        JsonFiles,
        Tally,
        labels_problem,
        outcome_lines,
        summary_json,
        summary_lines,
    )

    tally, failed = Tally(), list["Failed"]()
    document = JsonFiles(sys.stdout) if parsed.json else None
    bar = CountBar(sys.stderr, time.monotonic, "scored", len(files))
    started_s = time.monotonic()
    ended: KeyboardInterrupt | ScoringError | None = None
    try:
        for outcome in outcomes:
            tally.add(outcome)
            if isinstance(outcome, Failed):
                failed.append(outcome)
            with bar.hidden():
                if document is not None:
                    document.add(outcome)
                else:
                    _tell(outcome_lines(outcome), sys.stderr if isinstance(outcome, Failed) else sys.stdout)
            bar(tally.scored + tally.failed)
    except (KeyboardInterrupt, ScoringError) as error:  # a script's second process may be the one that does not start
        ended = error
    finally:
        bar.end()
    if isinstance(ended, ScoringError) and not tally.scored + tally.failed:
        raise ended
    seconds = time.monotonic() - started_s
    if document is not None:
        document.end({**summary_json(tally, len(files), seconds), "interrupted": ended is not None})
    elif len(files) > 1 or tally.scored:
        _tell(["", *summary_lines(tally, len(files), seconds)], sys.stdout)
    if problem := labels_problem(tally, labels):
        print(f"accelserve: {problem}", file=sys.stderr)
    if isinstance(ended, ScoringError):
        raise ended
    return ExitCode.UNFORESEEN if ended is not None else _exit_code(tally, failed)


def _tell(lines: Iterable[str], stream: TextIO) -> None:
    """What the terminal has no letters for is spelled out."""
    encoding = stream.encoding or "utf-8"
    print("\n".join(lines).encode(encoding, "backslashreplace").decode(encoding), file=stream)


def _exit_code(tally: "Tally", failed: "Sequence[Failed]") -> ExitCode:
    if not failed:
        return ExitCode.OK
    if failed[-1].ends_with is not None:
        return failed[-1].ends_with
    unread = not tally.scored and all(one.status == "UNREADABLE" for one in failed)
    return ExitCode.NOT_FOUND if unread else ExitCode.UNFORESEEN

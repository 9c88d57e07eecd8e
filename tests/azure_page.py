"""docs/azure_probe_table.md: how azmlinfsrv answers beside the original, and why where that differs.

usage: python -m tests.azure_page     starts our servers, asks them every probe, and writes the page
The answers come from servers, the reasons are here. A difference without a reason is an error, and so is a reason that
no difference needs (e2e/test_azure_probes.py).
"""

import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "e2e")]

from azml_original import by_server  # noqa: E402
from azml_process import azml_serving  # noqa: E402

from azure_probes import SCRIPTS, Outcome, ask  # noqa: E402

PAGE = HERE.parent / "docs" / "azure_probe_table.md"
GOLDEN = HERE / "golden" / "azure_probes.json"
ORIGINAL = "azureml-inference-server-http 1.5.1"
DEFAULT, STRICT = (), ("--strict-compat", "--host", "127.0.0.1")


_INTRODUCTION = """\
How `accelserve azmlinfsrv` answers what {original} is asked in {count} probes of three scripts
(JSON text, raw HTTP, a schema). Made by `python -m tests.azure_page` from the original's recorded answers and our
servers'; a test holds it. Of Swagger documents all is compared but descriptions, which are in our own words, and
examples. Headers are shown where they differ: ids that a server makes as `made`, values that differ from run to run as
`there`. `x-ms-server-version` says `accelserve/VERSION`, with `--strict-compat` what the original
says. Header names are in small letters here, and JSON that run() returns has no spaces; with `--strict-compat` it has.
"""


@dataclass(frozen=True)
class Reason:
    """Why answers differ: those of the probes whose key matches, in these fields of an Outcome or these headers."""

    probes: str
    what: str
    why: str

    def covers(self, key: str, what: str) -> bool:
        return re.fullmatch(self.probes, key) is not None and re.fullmatch(self.what, what) is not None


_IDS = "x-(ms-)?request-id|x-ms-server-version"
_NO_HTML = "errors are JSON with ids, the client learns that run() failed, and the worker lives on"
REASONS = {
    DEFAULT: (
        Reason(r".*: (POST /|PUT /score|DELETE /score)", "allow", "RFC 9110 wants `Allow` on 405"),
        Reason(r".*: (POST /|PUT /score|DELETE /score|GET /score/|an unknown path)", _IDS, "ids on every answer"),
        Reason(
            r".*: (OPTIONS /score|CORS: preflight)", ".*", "OPTIONS is answered by the server, so preflights succeed"
        ),
        Reason(r".*: HEAD /score", ".*", "HEAD is answered as GET"),
        Reason(r"json: POST .*form.*", ".*", "the body reaches run(), whatever type it is said to have"),
        Reason(r"schema: text/plain", ".*", "the body is read, whatever type it is said to have"),
        Reason(r".*: POST .* in gzip", ".*", "bodies in gzip and deflate are unpacked"),
        Reason(r"json: SystemExit in run\(\)", ".*", _NO_HTML),
        Reason(r"json: NaN returned", "body", "the answer is valid JSON"),
        Reason(r"json: bytes returned", ".*", "bytes and numpy values are encoded"),
        Reason(r"json: an object returned", ".*", "the client learns that run() failed, and what it returned"),
        Reason(r"json: run\(\) over SCORING_TIMEOUT_MS", "status", "504 tells a time limit from a script's error"),
        Reason(r"json: run\(\) over WORKER_TIMEOUT", ".*", "as over the other limit, and the worker lives on"),
        Reason(r".*: CORS: no Origin", "access-control-allow-origin", "who sends no Origin needs no permission"),
        Reason(r".*: CORS: another Origin", "vary", "a cache must not give this answer to an allowed page"),
    ),
    STRICT: (
        Reason(r"json: SystemExit in run\(\)", ".*", f"gunicorn's page is not imitated: {_NO_HTML}"),
        Reason(r"json: run\(\) over WORKER_TIMEOUT", ".*", f"gunicorn's page is not imitated: {_NO_HTML}"),
    ),
}


def original_answers() -> dict[str, Outcome]:
    """As recorded, by the probe's key."""
    return {key: Outcome(**fields) for key, fields in json.loads(GOLDEN.read_text()).items()}


def our_answers(folder: Path, arguments: tuple[str, ...]) -> dict[str, Outcome]:
    outcomes = {}
    for number, (script, environ, probes) in enumerate(by_server()):
        path = folder / f"{number}{len(arguments)}.py"
        path.write_text(SCRIPTS[script])
        with azml_serving(path, *arguments, log=path.with_suffix(".log"), environ=environ) as server:
            outcomes |= {probe.key: ask(server.http_port, probe) for probe in probes}
    return outcomes


def differences(original: Outcome, ours: Outcome) -> Iterator[tuple[str, str, str]]:
    """(what, the original's, ours) of each field and header that differs; "" for none."""
    for field in fields(Outcome):
        was, is_now = getattr(original, field.name), getattr(ours, field.name)
        if field.name == "headers":
            names = sorted({*was, *is_now})
            yield from ((n, was.get(n, ""), is_now.get(n, "")) for n in names if was.get(n) != is_now.get(n))
        elif was != is_now:
            yield field.name, str(was), str(is_now)


def page(ours: Mapping[tuple[str, ...], Mapping[str, Outcome]]) -> str:
    """ours: by the server's arguments, by key. Raises ValueError for a difference without a reason."""
    original = original_answers()
    lines = [
        "# azmlinfsrv beside the original",
        "",
        _INTRODUCTION.format(original=ORIGINAL, count=len(original)),
    ]
    for arguments, title in ((DEFAULT, "By default"), (STRICT, "With `--strict-compat`")):
        rows = list(_rows(original, ours[arguments], REASONS[arguments]))
        lines += [f"## {title}", "", f"{len(original) - len(rows)} probes are answered alike. The others:", ""]
        lines += ["| request | the original | here | why |", "| --- | --- | --- | --- |", *rows, ""]
    lines += ["## All probes", "", "The original's answers.", ""]
    lines += ["| request | status | type | body |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {_cell(key)} | {told.status} | {_cell(told.type)} | {_code(told.body)} |" for key, told in original.items()
    ]
    return "\n".join(lines) + "\n"


def _rows(original: Mapping[str, Outcome], ours: Mapping[str, Outcome], reasons: tuple[Reason, ...]) -> Iterator[str]:
    unused = set(reasons)
    for key, told in original.items():
        found = list(differences(told, ours[key]))
        why = {}
        for what, *values in found:
            covering = [reason for reason in reasons if reason.covers(key, what)]
            if not covering:
                raise ValueError(f"{key}: {what} is {values[1]!r} in place of {values[0]!r}, and nothing says why")
            unused.difference_update(covering)
            why[covering[0].why] = None
        if found:
            cells = [" ".join(_said(what, value[side]) for what, *value in found) for side in (0, 1)]
            yield f"| {_cell(key)} | {cells[0]} | {cells[1]} | {'; '.join(why)} |"
    if unused:
        raise ValueError(f"no difference needs: {', '.join(reason.why for reason in unused)}")


def _said(what: str, value: str) -> str:
    return f"{what} {_code(value)};" if value else f"no {what};"


def _code(text: str) -> str:
    short = " ".join(text.split())
    short = short if len(short) < 90 else f"{short[:87]}..."
    return f"`{_cell(short)}`" if short else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(page({arguments: our_answers(Path(folder), arguments) for arguments in REASONS}))
    print(f"{PAGE} is written")


if __name__ == "__main__":
    main()

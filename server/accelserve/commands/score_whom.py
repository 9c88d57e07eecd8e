"""Whom `accelserve score` asks, by its flags: a server, or an entry script."""

import argparse
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from accelserve.config_sources import ConfigError
from accelserve.entry_script.check import script_problems
from accelserve.entry_script.messages import WorkerSettings
from accelserve.errors import Kind, ScoringError
from accelserve.score_files.asking import Asker, Question
from accelserve.score_files.over_script import ScriptAsker
from accelserve.score_files.target import Target, parse_address, read_key


def opener(parsed: argparse.Namespace, environ: Mapping[str, str]) -> Callable[[], Asker]:
    """Makes each thread's way to answers. Raises ConfigError with all that is wrong, ScoringError for a bad script."""
    question = Question(parsed.model, parsed.input, parsed.output, parsed.top or None, parsed.timeout)
    if parsed.script is not None:
        return _script_opener(parsed)
    return _server_opener(parsed, environ, question)


def _server_opener(parsed: argparse.Namespace, environ: Mapping[str, str], question: Question) -> Callable[[], Asker]:
    problems = [f"{flag} is for --script" for flag in ("--model-files", "--legacy-tensorflow") if _given(parsed, flag)]
    if parsed.url is None:
        raise ConfigError([*problems, "say whom to ask: --url ADDRESS of a server, or --script FILE"])
    try:
        address, grpc = parse_address(parsed.url, parsed.grpc)
    except ValueError as error:
        raise ConfigError([*problems, f"--url: {error}"]) from error
    if problems:
        raise ConfigError(problems)
    target = Target(address, grpc, read_key(parsed.key_file, environ))
    return lambda: target.open(question)


def _script_opener(parsed: argparse.Namespace) -> Callable[[], Asker]:
    flags = ("--url", "--grpc", "--key-file", "--model", "--input", "--output")
    problems = [f"{flag} cannot be given with --script" for flag in flags if _given(parsed, flag)]
    if parsed.batch != 1:
        problems.append("--batch: an entry script takes one file at a time")
    models = {}
    for text in parsed.model_files:
        name, _, path = text.partition("=")
        if not name or not path:
            problems.append(f"--model-files {text!r}: want NAME=PATH")
        elif not Path(path).exists():
            problems.append(f"--model-files {text!r}: {path} does not exist")
        models[name] = os.path.abspath(path)
    if problems:
        raise ConfigError(problems)
    if not parsed.script.exists():
        raise ScoringError(Kind.NOT_FOUND, f"{parsed.script}: there is no such script")
    if wrong := script_problems(parsed.script):
        raise ScoringError(Kind.PRECONDITION, "\n".join(wrong))
    script = parsed.script.absolute()
    settings = WorkerSettings(
        str(script),
        str(script.parent),
        models=models,
        legacy_tensorflow=parsed.legacy_tensorflow,
        timeout_ms=round(parsed.timeout * 1000),
    )
    return lambda: ScriptAsker(settings, time.perf_counter)


def _given(parsed: argparse.Namespace, flag: str) -> bool:
    return bool(getattr(parsed, flag.removeprefix("--").replace("-", "_")))

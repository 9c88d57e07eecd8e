"""Whom `accelserve score` asks, by its flags: a server, or an entry script."""

import argparse
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from accelserve.commands.stored import Typed
from accelserve.config_sources import ConfigError
from accelserve.entry_script.check import script_problems
from accelserve.entry_script.messages import WorkerSettings
from accelserve.errors import Kind, ScoringError
from accelserve.score_files.asking import Asker, Question
from accelserve.score_files.over_script import ScriptAsker
from accelserve.score_files.target import Target, checked_tls, parse_address, read_key

_OF_SCRIPTS = ("--model-files", "--legacy-tensorflow")


def opener(parsed: argparse.Namespace, environ: Mapping[str, str]) -> Callable[[], Asker]:
    """Makes each thread's way to answers. Raises ConfigError with all that is wrong, ScoringError for a bad script."""
    labelled = parsed.labels is not None
    question = Question(parsed.model, parsed.input, parsed.output, parsed.top or None, parsed.timeout, labelled)
    if parsed.script is not None:
        return _script_opener(parsed)
    return _server_opener(parsed, environ, question)


def _server_opener(parsed: argparse.Namespace, environ: Mapping[str, str], question: Question) -> Callable[[], Asker]:
    if problems := [f"{flag} is for --script" for flag in _OF_SCRIPTS if _given(parsed, flag)]:
        raise ConfigError(problems)
    target = _service(parsed, environ) if parsed.url is None else _server(parsed, environ)
    return lambda: target.open(question)


def _server(parsed: argparse.Namespace, environ: Mapping[str, str]) -> Target:
    try:
        address, grpc, secure = parse_address(parsed.url, parsed.grpc)
    except ValueError as error:
        raise ConfigError([f"--url: {error}"]) from error
    files = (parsed.tls_roots, parsed.tls_cert, parsed.tls_key)
    if any(files) and not grpc and not secure:
        raise ConfigError([f"--url {parsed.url}: TLS is spoken at https:// addresses"])
    tls = checked_tls(*files) if secure or any(files) else None
    return Target(address, grpc, read_key(parsed.key_file, environ), tls=tls)


def _service(parsed: argparse.Namespace, environ: Mapping[str, str]) -> Target:
    """The first of the files is the service's name then, and is taken from them."""
    from accelserve.deploy.services import service_address

    name, *files = parsed.files
    if not files:
        problem = f"which file of which service? want SERVICE FILE..., or --url or --script and files; got {name!r}"
        raise ConfigError([problem])
    parsed.files = files
    try:
        where = service_address(name, environ)
    except ScoringError as error:
        if error.kind is not Kind.NOT_FOUND or not os.path.exists(name):
            raise
        said = f"{error.message}; {name} is a file: say --url ADDRESS for a server, or the service's name first"
        raise ScoringError(Kind.NOT_FOUND, said) from error
    key = read_key(parsed.key_file, environ) if parsed.key_file is not None else where.key
    address = where.grpc if parsed.grpc else where.scoring_uri.removesuffix("/score")
    # Its own certificate is trusted, as one that nobody else has signed has to be.
    roots = parsed.tls_roots or (Path(where.tls_cert) if where.tls_cert else None)
    tls = checked_tls(roots, parsed.tls_cert, parsed.tls_key) if where.tls_cert else None
    return Target(address, parsed.grpc, key, service=name, tls=tls)


def _script_opener(parsed: argparse.Namespace) -> Callable[[], Asker]:
    flags = (
        "--url",
        "--grpc",
        "--key-file",
        "--tls-roots",
        "--tls-cert",
        "--tls-key",
        "--model",
        "--input",
        "--output",
    )
    problems = [f"{flag} cannot be given with --script" for flag in flags if _given(parsed, flag)]
    if parsed.batch != 1:
        problems.append("--batch: an entry script takes one file at a time")
    typed = Typed()
    models = {name: str(path) for name, path in typed.named_files("--model-files", parsed.model_files).items()}
    problems += typed.problems
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

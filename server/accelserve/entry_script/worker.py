"""The process of an entry script: `python -m accelserve.entry_script.worker FD PARENT [PERMITS]`, started by the pool.

FD: its end of a socket pair, on which the settings come first. PARENT: the process that it ends with. PERMITS: an
eventfd, for requests given ahead; who gives none says none.
It says READY or FAILED, and serves requests until the socket is closed.
"""

import asyncio
import gc
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import accelserve
from accelserve.allocator import raise_malloc_thresholds
from accelserve.entry_script import legacy_tensorflow, stand_ins
from accelserve.entry_script.aml_response import AMLResponse, StrictAMLResponse
from accelserve.entry_script.answers import Answers
from accelserve.entry_script.heads import failed_frame, ready_frame, settings_of
from accelserve.entry_script.inputs import Inputs, ScriptError
from accelserve.entry_script.json_answers import JsonEncoder
from accelserve.entry_script.messages import WorkerFailed, WorkerReady, WorkerSettings
from accelserve.entry_script.model_paths import ModelPaths
from accelserve.entry_script.own_process import (
    keep_to_this_process,
    leave_signals_to_the_server,
    print_line_by_line,
    tell_crashes,
)
from accelserve.entry_script.runner import Runner
from accelserve.entry_script.scores import Scores
from accelserve.entry_script.script import Script, load_script, schemas_of
from accelserve.entry_script.serving import AsyncServing, read_first, send, serve
from accelserve.entry_script.swagger import ANY_SCHEMAS, Service, swagger_documents
from accelserve.entry_script.time_limit import TimeLimit, alarm
from accelserve.entry_script.tracebacks import brief, said, told, whole
from accelserve.process_ends import die_with

EXIT_SCRIPT_FAILED = 3
_TREE_LINES = 200  # of the model folder, when init() failed


def main(descriptor: int, parent: int, permits: int = -1) -> int:
    """The exit code."""
    die_with(parent)
    raise_malloc_thresholds()  # for bodies of hundreds of KB, as in the server
    tell_crashes()
    print_line_by_line()
    leave_signals_to_the_server()
    sock = socket.socket(fileno=descriptor)
    keep_to_this_process(sock)
    if permits >= 0:
        os.set_inheritable(permits, False)
    try:
        frame = read_first(sock)
        return 0 if frame is None else _work(sock, settings_of(frame), permits)
    except OSError:  # the server has gone, or the script closed what is not its own
        return 1


def _work(sock: socket.socket, settings: WorkerSettings, permits: int) -> int:
    with closing(asyncio.Runner()) as loop:  # begins where init() or run() is async
        try:
            script, runner, ready = _prepare(settings, loop)
        except BaseException as error:
            send(sock, failed_frame(_failure(error, settings)))
            return EXIT_SCRIPT_FAILED
        gc.collect()
        gc.freeze()  # what init() made stays: a full collection need not look at a model
        send(sock, ready_frame(ready))
        if script.is_async:
            with suppress(ExceptionGroup):  # the server has gone
                loop.run(AsyncServing(sock, runner).serve())
        else:
            serve(sock, runner, permits)
    return 0


class _InitFailed(Exception):
    """init() raised what is its cause."""


def _prepare(settings: WorkerSettings, loop: asyncio.Runner) -> tuple[Script, Runner, WorkerReady]:
    encoder = JsonEncoder(settings.nan, settings.strict_compat)
    rawhttp = stand_ins.RawHttp()
    _set_up_imports(settings, rawhttp, encoder)
    if settings.legacy_tensorflow:
        legacy_tensorflow.install(encoder)
    script = load_script(Path(settings.script))
    inputs = Inputs(script.run, rawhttp.used, settings.strict_compat)
    _initialise(script, loop)
    limit = TimeLimit(settings.timeout_ms * 1_000_000, perf_counter_ns, alarm)
    runner = Runner(script.run, inputs, Answers(encoder), limit, settings.timeout_ms, settings.strict_compat)
    return script, runner, _ready(settings, script, inputs)


def _set_up_imports(settings: WorkerSettings, rawhttp: stand_ins.RawHttp, encoder: JsonEncoder) -> None:
    """What the script finds: modules, environment, arguments, and `accelserve.score`."""
    base = StrictAMLResponse if settings.strict_compat else AMLResponse
    response = type("AMLResponse", (base,), {"encoder": encoder})
    stand_ins.install(rawhttp, response, ModelPaths(settings.models, settings.app_root, settings.model_dir))
    accelserve.score = Scores(settings.score_address, settings.score_key, settings.timeout_ms / 1000).score
    os.environ["AML_APP_ROOT"] = settings.app_root
    os.environ.setdefault("SERVICE_NAME", settings.service)
    if settings.model_dir:
        os.environ["AZUREML_MODEL_DIR"] = settings.model_dir
    sys.argv = [settings.script]
    if settings.working_directory:
        os.chdir(settings.working_directory)
    if os.getcwd() not in sys.path[:1]:  # the pool starts us with -P, lest a script's email.py be ours
        sys.path.insert(0, os.getcwd())
    places = (settings.app_root, settings.source_directory, os.path.dirname(settings.script))
    sys.path += [place for place in places if place and place not in sys.path]


def _initialise(script: Script, loop: asyncio.Runner) -> None:
    async def finish(started: Any) -> None:
        await started

    try:
        started = script.init()
        if hasattr(started, "__await__"):
            loop.run(finish(started))
    except BaseException as error:
        raise _InitFailed from error


def _ready(settings: WorkerSettings, script: Script, inputs: Inputs) -> WorkerReady:
    schemas = schemas_of(script.run) if inputs.shape == "schema" else ANY_SCHEMAS
    prefix = f"/{settings.path_prefix.strip('/')}".rstrip("/")
    service = Service(settings.service, settings.service_version, prefix)
    return WorkerReady(inputs.shape, script.is_async, swagger_documents(Path(settings.app_root), service, schemas))


def _failure(error: BaseException, settings: WorkerSettings) -> WorkerFailed:
    """Why the script cannot be served, with what to do where that is known."""
    if isinstance(error, ScriptError):
        return WorkerFailed(whole(str(error)))
    if isinstance(error, _InitFailed):
        cause = error.__cause__ or error
        tree = "".join(f"{line}\n" for line in _model_tree(settings.model_dir))
        return WorkerFailed(f"init() failed: {_said(cause, settings)}", told(cause) + whole(tree))
    return WorkerFailed(f"{settings.script} cannot be loaded: {_said(error, settings)}", told(error))


def _said(error: BaseException, settings: WorkerSettings) -> str:
    if isinstance(error, SystemExit):
        return f"it ended itself with exit code {brief(str(error.code))}"
    text = said(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{text}; {_remedy(error.name.partition('.')[0])}"
    if not settings.legacy_tensorflow and "module 'tensorflow' has no attribute" in text:
        return f"{text}; a script of TensorFlow 1 runs with --legacy-tensorflow"
    return text


def _remedy(module: str) -> str:
    packages = {
        "tensorflow": "accelserve[tensorflow]",
        "inference_schema": "inference-schema",
        "sklearn": "scikit-learn",
        "cv2": "opencv-python-headless",
        "PIL": "pillow",
    }
    return f"install {packages.get(module, module)} where accelserve is installed ({sys.prefix})"


def _model_tree(folder: str) -> Iterator[str]:
    """What is in the model folder, as the original shows it when init() failed."""
    if not folder or not os.path.isdir(folder):
        return
    yield f"the model folder {folder}:"
    paths = (os.path.join(place, name) for place, _, names in os.walk(folder) for name in sorted(names))
    yield from islice(paths, _TREE_LINES)
    if next(paths, None) is not None:
        yield f"... and more than these {_TREE_LINES} lines"


if __name__ == "__main__":
    worker = os.getpid()
    code = main(*map(int, sys.argv[1:]))
    if os.getpid() != worker:  # a script forked, and its child came back here
        os._exit(code)
    sys.exit(code)

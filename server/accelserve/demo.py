"""`accelserve demo`: serve the built-in digits, ask once over HTTP and once over gRPC, say how to repeat it.

The server is a process of its own, started by the command that users type; this one is its client.
"""

import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from accelserve.builtin import digits_path, pictures
from accelserve.client import Client, GrpcClient, ServerError
from accelserve.errors import ExitCode
from accelserve.process_ends import signal_name

_START_LIMIT_S = 120.0
_POLL_S = 1.0
_STOP_LIMIT_S = 15.0


def run_demo(model: Path | None, http_port: int, grpc_port: int, *, stop_after_answers: bool) -> ExitCode:
    """Returns OK when both answers are right; the server's own code when it does not start.

    What else goes wrong is told in one line and is UNFORESEEN.
    """
    path = model or digits_path()
    command = [sys.executable, "-m", "accelserve", "serve", "--model", f"digits={path}", "--grace-period", "0"]
    command += ["--http-port", str(http_port), "--grpc-port", str(grpc_port), "--log-level", "warning"]
    started = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell's background jobs start with SIGINT ignored
        signal.signal(number, _interrupt)
    # A session of its own: Ctrl-C reaches this process alone, which then asks the server once.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as server:
        try:
            line = _ready_line(server)
            if line is None:
                return _end_before_ready(server.wait())
            print(f"{line.strip()}  ({time.monotonic() - started:.1f} s)\n", flush=True)
            right = _ask(*_addresses(line))
            if stop_after_answers:
                return ExitCode.OK if right else ExitCode.UNFORESEEN
            print("\nserving on; Ctrl-C ends it", flush=True)
            return _end(_wait(server))
        except KeyboardInterrupt:
            return ExitCode.OK
        except (ServerError, OSError, ValueError) as error:
            return _tell(f"no answer as of a model of digits: {error}")
        finally:
            _stop(server)


def _wait(server: "subprocess.Popen[str]") -> int:
    """Until the server ends. It polls: Python would not notice a signal that comes just before a wait without limit."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            return server.wait(_POLL_S)


def _interrupt(number: int, frame: object) -> None:
    """SIGTERM ends the demo as Ctrl-C does, and the server with it."""
    raise KeyboardInterrupt


def _ready_line(server: "subprocess.Popen[str]") -> str | None:
    """The line that the server prints when it is ready; None when it ends instead."""
    watchdog = threading.Timer(_START_LIMIT_S, server.kill)
    watchdog.start()
    try:
        assert server.stdout is not None
        return next((line for line in server.stdout if " is ready: " in line), None)
    finally:
        watchdog.cancel()


def _end_before_ready(status: int) -> ExitCode:
    if status == 0:  # somebody told it to stop
        return _tell("the server ended before it was ready")
    return _end(status)


def _end(status: int) -> ExitCode:
    """The server's own code. status: as of `Popen.wait`, negative when a signal ended it."""
    if status in set(ExitCode):
        return ExitCode(status)
    if status == -signal.SIGKILL:
        why = f"out of memory, or not ready within {_START_LIMIT_S:.0f} s"
        return _tell(f"the server was killed by SIGKILL ({why})")
    if status < 0:
        return _tell(f"the server was killed by {signal_name(-status)}")
    return _tell(f"the server ended with {status}")


def _tell(problem: str) -> ExitCode:
    print(f"accelserve: demo: {problem}", file=sys.stderr)
    return ExitCode.UNFORESEEN


def _addresses(line: str) -> tuple[str, str]:
    """`... ready: http://HOST:PORT (HTTP) HOST:PORT (gRPC) ...` -> the two addresses."""
    words = line.split()
    return words[words.index("(HTTP)") - 1], words[words.index("(gRPC)") - 1]


def _ask(http_url: str, grpc_address: str) -> bool:
    picture, truth = pictures()[7]
    over_http = _ask_http(http_url, picture)
    over_grpc = _ask_grpc(grpc_address, picture)
    print(f"picture        {picture}")
    print(f"truth          {truth}")
    for protocol, digit, probability in (("HTTP", *over_http), ("gRPC Predict", *over_grpc)):
        verdict = "right" if digit == truth else "WRONG"
        print(f"{protocol:<14} {digit}  (probability {probability:.3f})  {verdict}")
    print(f"\nrepeat it      curl --data-binary @{picture} '{http_url}/score?top=3'")
    print(f"metrics        {http_url}/metrics")
    print(f"API            {http_url}/docs")
    return over_http[0] == over_grpc[0] == truth


def _ask_http(url: str, picture: Path) -> tuple[int, float]:
    with Client(url) as client:
        best = client.score(picture, top=1)[0]
    return int(best["index"]), float(best["score"])


def _ask_grpc(address: str, picture: Path) -> tuple[int, float]:
    """As the clients of the original services do: the file's bytes as a string tensor."""
    jpeg = np.array([picture.read_bytes()], dtype=object)
    with GrpcClient(address) as client:
        outputs = client.predict({_picture_input(client): jpeg})
    if "scores" not in outputs:
        raise ValueError(f'want an output "scores", got {", ".join(outputs)}')
    scores = outputs["scores"][0]
    return int(scores.argmax()), float(scores.max())


def _picture_input(client: GrpcClient) -> str:
    """The name of the model's only input. Raises ValueError if it has several."""
    names = client.input_names("digits")
    if len(names) != 1:
        raise ValueError(f"want one input, got {', '.join(names) or 'none'}")
    return names[0]


def _stop(server: "subprocess.Popen[str]") -> None:
    server.send_signal(signal.SIGINT)
    try:
        server.wait(_STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        server.kill()

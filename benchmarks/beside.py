"""Servers side by side: ours and its peers, all up at once, measured in turn, round by round."""

import contextlib
import fcntl
import json
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import harness, record
from benchmarks.load import Load, Request, WrongAnswer, drive, pinned, predict_url
from benchmarks.peers import payloads
from benchmarks.peers.cases import SLOW_ROUNDS, Case
from benchmarks.peers.catalog import FORMS, OWN_FORM, PEERS, SERVERS, environment_of
from benchmarks.peers.environments import python_of
from benchmarks.tables import BARE, OURS

BARE_BATCHES = (1, 2, 4, 8)
PATHS = {"json": "/v1/models/{model}:predict", "jpeg": "/score", "raw": "/score"}
LOCK = Path(tempfile.gettempdir()) / "peers.lock"


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run is done. also: name -> checkout of ours to measure beside this one. left_out: peer -> reason."""

    work: Path
    results: Path
    quick: bool = False
    rounds: int | None = None
    seconds: int | None = None
    also: Mapping[str, Path] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    private_network: bool = False

    def rounds_of(self, usual: int) -> int:
        return self.rounds or (min(2, usual) if self.quick else usual)

    def seconds_of(self, usual: int) -> int:
        return self.seconds or (min(2, usual) if self.quick else usual)


class Contender:
    """Who takes part in the first `rounds` rounds."""

    __slots__ = ()
    name: str
    rounds: int

    def measure(self) -> Iterator[dict[str, Any]]:
        """The points of one round. Raises OSError, ServerFailed or WrongAnswer."""
        raise NotImplementedError

    def leave(self) -> None:
        """Called when it takes part no more, so that it does not disturb the others."""


@dataclass(frozen=True, slots=True)
class Served(Contender):
    """A server, asked by each number of clients in turn. patient: what is under way at the end counts too.

    restless: it uses a core's tenth while nobody asks, so it is halted while others are measured.
    """

    name: str
    rounds: int
    server: harness.Server
    request: Request
    clients: Sequence[int]
    seconds: int
    patient: bool = False
    restless: bool = False

    def measure(self) -> Iterator[dict[str, Any]]:
        if not self.restless:
            yield from self._measure()
            return
        self.server.tree.signal(signal.SIGCONT)
        try:
            yield from self._measure()
        finally:
            self.server.tree.signal(signal.SIGSTOP)

    def leave(self) -> None:
        if self.restless:
            self.server.tree.signal(signal.SIGCONT)
        self.server.end()

    def _measure(self) -> Iterator[dict[str, Any]]:
        """Warmed up with the most clients: glibc keeps buffers up to the largest it has seen, so the past counts."""
        _, core = harness.two_cores()
        self.server.pin()
        drive(self.request, max(self.clients), max(1, self.seconds // 4), core, self.patient)
        for clients in self.clients:
            point = harness.measured(self.server, self.request, partial(self._load, clients, core))
            yield {"clients": clients, **harness.flat(point)}
        yield {"pss_mib": self.server.tree.pss_mib(), "processes": len(self.server.tree.members())}

    def _load(self, clients: int, core: int) -> Load:
        return drive(self.request, clients, self.seconds, core, self.patient)


@dataclass(frozen=True, slots=True)
class Bare(Contender):
    """The model in a process of its own, without a server, on the server's core: images per second by batch size."""

    rounds: int
    model: Path
    picture: Path
    seconds: int
    name: str = BARE

    def measure(self) -> Iterator[dict[str, Any]]:
        core, _ = harness.two_cores()
        seconds = self.seconds / len(BARE_BATCHES)
        words = ("rate", self.model, self.picture, seconds, ",".join(map(str, BARE_BATCHES)))
        command = pinned(core, harness.module_command("bare_session", *words))
        done = subprocess.run(command, cwd=harness.ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=300)
        if done.returncode:
            raise harness.ServerFailed(f"bare_session ended with {done.returncode}")
        yield from map(json.loads, done.stdout.splitlines())


class Results:
    """A JSONL file: first what was measured and how, then a line for each point. Every line is written at once."""

    def __init__(self, path: Path, claim: str, settings: Settings, **more: Any) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        left_out = {who: record.without_places(why) for who, why in settings.left_out.items()}
        self.add({"claim": claim, **record.provenance(), "left_out": left_out, **more})

    def fail(self, who: str, error: Exception, **more: Any) -> None:
        self.add({"failed": who, **more, "why": record.without_places(str(error))})
        harness.say(f"  {who} failed: {error}")

    def add(self, line: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(record.rounded(line)) + "\n")


def measure_case(name: str, case: Case, settings: Settings) -> bool:
    """Start everybody, measure them, write the results; False if ours failed."""
    peers = [peer for peer in _peers(case, settings) if environment_of(peer) not in settings.left_out]
    versions = {peer: _version(environment_of(peer)) for peer in peers}
    out = Results(settings.results / f"{name}.jsonl", case.claim, settings, case=name, peers=versions)
    with ExitStack() as stack:
        contenders = list(_started(stack, name, case, peers, settings, out))
        failed = take_turns(contenders, settings.rounds_of(case.rounds), out)
    return not any(who.startswith(OURS) for who in failed)


def take_turns(contenders: Sequence[Contender], rounds: int, out: Results) -> set[str]:
    """Measure them in turn, round after round, each beginning with another one. Returns those who failed.

    The lock keeps two runs on one machine from measuring at the same time.
    """
    failed: set[str] = set()
    by_name = {contender.name: contender for contender in contenders}
    for number in range(rounds):
        names = [name for name, who in by_name.items() if name not in failed and number < who.rounds]
        for name in harness.rotated(names, number) if names else ():
            try:
                with locked():
                    for point in by_name[name].measure():
                        out.add({"round": number, "server": name, **point})
            except (OSError, ValueError, subprocess.SubprocessError, harness.ServerFailed, WrongAnswer) as error:
                failed.add(name)
                out.fail(name, error, round=number)
        for name, who in by_name.items():
            if who.rounds == number + 1 and name not in failed:
                who.leave()
        harness.say(f"  round {number + 1} of {rounds} is done")
    return failed


@contextlib.contextmanager
def locked() -> Iterator[None]:
    with LOCK.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _peers(case: Case, settings: Settings) -> Sequence[str]:
    return case.quick_peers if settings.quick else (*case.peers, *case.slow_peers)


def _started(
    stack: ExitStack, name: str, case: Case, peers: Sequence[str], settings: Settings, out: Results
) -> Iterator[Contender]:
    """Ours first. Who does not start is left out, with a line that says why."""
    rounds, seconds = settings.rounds_of(case.rounds), settings.seconds_of(case.seconds)
    if case.bare:
        work = settings.work
        yield Bare(rounds, work / "models" / f"{case.model}.onnx", work / "bodies" / f"{case.body}.jpg", seconds)
    checkouts = {OURS: harness.ROOT, **{f"{OURS} {also}": folder for also, folder in settings.also.items()}}
    for who in (*checkouts, *peers):
        if who in checkouts:
            server, request = our_server(who, checkouts[who], name, case, settings.work)
        else:
            server, request = peer_server(who, name, case, settings.work)
        try:
            stack.enter_context(server)
            took_s = server.wait_for([request], limit_s=PEERS[who].boot_s if who in PEERS else harness.START_S)
            reachable = () if settings.private_network or who in checkouts else server.tree.open_listeners()
            if reachable:
                raise harness.ServerFailed(f"listens beyond loopback: {', '.join(reachable)}")
        except (OSError, harness.ServerFailed, WrongAnswer) as error:
            out.fail(who, error)
            continue
        harness.say(f"  {who} answers rightly after {took_s:.1f} s")
        few = min(SLOW_ROUNDS, rounds) if who in case.slow_peers else rounds
        restless = who in PEERS and PEERS[who].restless
        if restless:
            server.tree.signal(signal.SIGSTOP)
        yield Served(who, few, server, request, case.clients, seconds, patient=case.bare, restless=restless)


def our_server(who: str, checkout: Path, name: str, case: Case, work: Path) -> tuple[harness.Server, Request]:
    http_port, grpc_port = harness.free_port(), harness.free_port()
    model = {case.model: work / "models" / f"{case.model}.onnx"}
    command = harness.accelserve_command(model, http_port, grpc_port)
    core, _ = harness.two_cores()
    server = harness.Server(who, command, core, {"PYTHONPATH": str(checkout / "server")})
    if case.kind == "grpc":
        url = predict_url(grpc_port)
    else:
        url = f"http://127.0.0.1:{http_port}{PATHS[case.kind].format(model=case.model)}"
    return server, _request(url, name, case, OWN_FORM[case.kind], work)


def peer_server(who: str, name: str, case: Case, work: Path) -> tuple[harness.Server, Request]:
    peer, ports = PEERS[who], [harness.free_port() for _ in range(3)]
    python = python_of(environment_of(who), work / "venvs")
    places = {
        "bin": str(python.parent), "servers": str(SERVERS),
        "port": str(ports[0]), "port1": str(ports[1]), "port2": str(ports[2]),
    }  # fmt: skip
    env = {
        "PORT": places["port"], "PORT1": places["port1"], "PORT2": places["port2"],
        "PYTHONPATH": f"{SERVERS}:{work / 'wire'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "PEERS_MODEL": str(work / "models" / f"{case.model}.onnx"),
        "PEERS_INPUT": case.kind,
        **peer.environment(places),
    }  # fmt: skip
    core, _ = harness.two_cores()
    server = harness.Server(who, peer.arguments(places), core, env, work / "scratch" / who)
    url = f"http://127.0.0.1:{ports[0]}{peer.paths[case.kind]}"
    return server, _request(url, name, case, peer.forms.get(case.kind, OWN_FORM[case.kind]), work)


def _request(url: str, name: str, case: Case, form: str, work: Path) -> Request:
    body = payloads.body(work, case.body, form)
    return Request(url, body, FORMS[form][1], payloads.expected(work, name), case.tolerance)


def _version(environment: str) -> str:
    """The peer's own package with its version, which its requirements name first."""
    lines = (SERVERS.parent / "requirements" / f"{environment}.txt").read_text().splitlines()
    return next(line for line in lines if line and not line.startswith("#"))

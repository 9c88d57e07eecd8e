"""`accelserve deploy --target kubernetes`: its flags, and the files that it writes."""

import argparse
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from accelserve.config_sources import ConfigError
from accelserve.durable_files import write_whole
from accelserve.errors import ExitCode, Kind, ScoringError

if TYPE_CHECKING:
    from accelserve.deploy.definition import ServiceDefinition
    from accelserve.deploy.manifests import Cluster
    from accelserve.keys import Keys

_LOCAL_ONLY = ("wait", "json")


def add_cluster_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", default="local", metavar="local|kubernetes", help="where to (default: local)")
    cluster = parser.add_argument_group(
        "--target kubernetes", "writes manifests and starts nothing (docs/kubernetes.md)"
    )
    cluster.add_argument("--image", metavar="IMAGE", help="what the pods run; `accelserve package` describes one")
    cluster.add_argument("--out", type=Path, metavar="DIR", help="where the files go (default: ./NAME-kubernetes)")
    cluster.add_argument("--namespace", metavar="NAME", help="of the objects (default: kubectl's)")
    cluster.add_argument("--fpga-resource", metavar="NAME", help="what the device plugin calls the card")
    cluster.add_argument(
        "--autoscale-by", metavar="requests|cpu", help="what the autoscaler compares (default: requests in flight)"
    )
    cluster.add_argument(
        "--with-secret",
        action="store_true",
        help="also write two keys (those there, else new ones) and the TLS files, in clear",
    )


def cluster_problems(parsed: argparse.Namespace) -> Iterator[str]:
    """What was typed for the other target."""
    given = ("image", "out", "namespace", "fpga_resource", "autoscale_by", "with_secret")
    if parsed.target == "local":
        yield from (f"{_flag(name)}: is of --target kubernetes" for name in given if getattr(parsed, name))
    elif parsed.target == "kubernetes":
        yield from (f"{_flag(name)}: is of --target local" for name in _LOCAL_ONLY if getattr(parsed, name))
        if not parsed.image:
            yield "--image: say what the pods run; `accelserve package` describes one"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def write_manifests(parsed: argparse.Namespace, definition: "ServiceDefinition") -> ExitCode:
    """Into a folder that is new, or with `--overwrite` file by file; then what is ours and of before goes.

    Raises ConfigError, ScoringError(CONFLICT).
    """
    from accelserve.deploy.manifests import left_in_cluster

    out = parsed.out or Path(f"{definition.name}-kubernetes")
    try:
        files = _files(parsed, definition, out)
        out.mkdir(mode=0o700 if parsed.with_secret else 0o755, parents=True, exist_ok=parsed.overwrite)
        for name, text in files.items():
            write_whole(out / name, text.encode(), mode=0o600 if name.startswith("secret-") else 0o644)
        removed = list(_remove_old(out, files))
    except OSError as error:
        why = f"{error.filename or out}: {error.strerror}; choose another --out, or say --overwrite"
        raise ScoringError(Kind.CONFLICT, why) from error
    print("\n".join(str(out / name) for name in files))
    print(f"kubectl apply -f {out}")
    if left := left_in_cluster(removed, definition):
        where = ("-n", parsed.namespace) if parsed.namespace else ()
        print(" ".join(("kubectl delete --ignore-not-found", *where, *left)))
    return ExitCode.OK


def _files(parsed: argparse.Namespace, definition: "ServiceDefinition", out: Path) -> dict[str, str]:
    from accelserve.deploy.manifests import manifests

    cluster = _cluster(parsed, definition, out)
    try:
        return manifests(definition, parsed.image, cluster)
    except ScoringError as error:
        raise ConfigError(error.message.splitlines()) from error


def _remove_old(out: Path, files: Collection[str]) -> Iterator[str]:
    """`kubectl apply -f` takes all that is in the folder. Raises OSError."""
    from accelserve.deploy.manifests import FILES, is_ours

    for name in FILES:
        if name not in files and is_ours(_there(out / name)):
            (out / name).unlink()
            print(f"accelserve: {out / name} is of before, and is removed", file=sys.stderr)
            yield name


def _there(path: Path) -> str:
    """Empty for what is no file or no text."""
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except ValueError:
        return ""


def _cluster(parsed: argparse.Namespace, definition: "ServiceDefinition", out: Path) -> "Cluster":
    from accelserve.deploy.manifests import Cluster

    told = {"namespace": parsed.namespace, "fpga_resource": parsed.fpga_resource, "autoscale_by": parsed.autoscale_by}
    named = {name: value for name, value in told.items() if value}
    if not parsed.with_secret:
        return Cluster(**named)
    old = out / "secret-keys.yaml" if parsed.overwrite else None
    keys = _keys(definition, old) if definition.auth == "key" else None
    tls = (_text(definition.tls_cert), _text(definition.tls_key)) if definition.tls_cert else None
    return Cluster(**named, keys=keys, tls=tls)


def _keys(definition: "ServiceDefinition", old: Path | None) -> "Keys":
    """Those that clients have already, else new ones."""
    from accelserve.deploy.manifests import keys_in
    from accelserve.keys import new_keys

    if old is None or not old.is_file():
        return new_keys()
    kept = keys_in(_there(old), definition)
    if kept is None:
        print(f"accelserve: {old} had no keys of {definition.name}: it gets two new keys", file=sys.stderr)
    return kept or new_keys()


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path}: {getattr(error, 'strerror', None) or 'is no PEM file'}"]) from error

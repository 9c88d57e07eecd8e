"""`accelserve deploy --target kubernetes`: its flags, and the files that it writes."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from accelserve.config_sources import ConfigError
from accelserve.durable_files import write_whole
from accelserve.errors import ExitCode, Kind, ScoringError

if TYPE_CHECKING:
    from accelserve.deploy.definition import ServiceDefinition
    from accelserve.deploy.manifests import Cluster

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
        "--with-secret", action="store_true", help="also write two new keys, and the TLS files, in clear"
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
    """Into a folder that is new, or with `--overwrite` file by file. Raises ConfigError, ScoringError(CONFLICT)."""
    from accelserve.deploy.manifests import manifests

    try:
        files = manifests(definition, parsed.image, _cluster(parsed, definition))
    except ScoringError as error:
        raise ConfigError(error.message.splitlines()) from error
    out = parsed.out or Path(f"{definition.name}-kubernetes")
    try:
        out.mkdir(mode=0o700 if parsed.with_secret else 0o755, parents=True, exist_ok=parsed.overwrite)
        for name, text in files.items():
            write_whole(out / name, text.encode(), mode=0o600 if name.startswith("secret-") else 0o644)
    except OSError as error:
        why = f"{error.filename or out}: {error.strerror}; choose another --out, or say --overwrite"
        raise ScoringError(Kind.CONFLICT, why) from error
    print("\n".join(str(out / name) for name in files))
    print(f"kubectl apply -f {out}")
    return ExitCode.OK


def _cluster(parsed: argparse.Namespace, definition: "ServiceDefinition") -> "Cluster":
    from accelserve.deploy.manifests import Cluster
    from accelserve.keys import new_keys

    told = {"namespace": parsed.namespace, "fpga_resource": parsed.fpga_resource, "autoscale_by": parsed.autoscale_by}
    named = {name: value for name, value in told.items() if value}
    if not parsed.with_secret:
        return Cluster(**named)
    keys = new_keys() if definition.auth == "key" else None
    tls = (_text(definition.tls_cert), _text(definition.tls_key)) if definition.tls_cert else None
    return Cluster(**named, keys=keys, tls=tls)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path}: {getattr(error, 'strerror', None) or 'is no PEM file'}"]) from error

"""Certificates for tests, made by the openssl command; each authority and each certificate has a key of its own."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

LIMIT_S = 60.0
_NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"


@dataclass(frozen=True)
class Pair:
    """PEM files."""

    cert: Path
    key: Path


def openssl(*arguments: object) -> str:
    done = subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    if done.returncode:
        pytest.fail(f"openssl {arguments[0]}: {done.stderr}")
    return done.stdout


def new_key(path: Path, kind: str = "ec") -> Path:
    """kind: "rsa", "ec" for P-256, or "ec:CURVE"; else an algorithm as openssl calls it."""
    if kind.startswith("ec"):
        curve = kind.partition(":")[2] or "prime256v1"
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{curve}", "-out", path)
    elif kind.startswith("rsa"):
        openssl("genpkey", "-algorithm", kind, "-pkeyopt", "rsa_keygen_bits:2048", "-out", path)
    else:
        openssl("genpkey", "-algorithm", kind, "-out", path)
    path.chmod(0o600)
    return path


def authority(folder: Path, name: str = "ca") -> Pair:
    """Who signs others; trusted by nobody but who is told."""
    pair = Pair(folder / f"{name}.pem", new_key(folder / f"{name}-key.pem"))
    openssl("req", "-x509", "-key", pair.key, "-out", pair.cert, "-days", 30, "-subj", f"/CN={name}")
    return pair


def signed(by: Pair, folder: Path, name: str = "server", kind: str = "ec", days: tuple[str, str] | None = None) -> Pair:
    """A certificate for localhost and 127.0.0.1. days: from and to, YYYYMMDDHHMMSSZ; now and 30 days by default."""
    pair = Pair(folder / f"{name}.pem", new_key(folder / f"{name}-key.pem", kind))
    request, extra = folder / f"{name}.csr", folder / f"{name}.ext"
    openssl("req", "-new", "-key", pair.key, "-out", request, "-subj", f"/CN={name}")
    extra.write_text(f"{_NAMES}\nbasicConstraints=CA:FALSE\n")
    if days is None:
        of_ca = ("-CA", by.cert, "-CAkey", by.key, "-CAcreateserial", "-days", 30)
        openssl("x509", "-req", "-in", request, "-out", pair.cert, "-extfile", extra, *of_ca)
    else:
        _sign_for(by, folder, request, pair.cert, extra, days)
    return pair


def _sign_for(by: Pair, folder: Path, request: Path, cert: Path, extra: Path, days: tuple[str, str]) -> None:
    """Only `openssl ca` can say from when to when."""
    (folder / "index.txt").write_text("")
    (folder / "ca.cnf").write_text(
        f"[ca]\ndefault_ca=own\n[own]\ndatabase={folder}/index.txt\nnew_certs_dir={folder}\nrand_serial=yes\n"
        "policy=any\ndefault_md=sha256\n[any]\ncommonName=supplied\n"
    )
    openssl(
        *("ca", "-batch", "-config", folder / "ca.cnf", "-cert", by.cert, "-keyfile", by.key, "-in", request),
        *("-out", cert, "-notext", "-extfile", extra, "-startdate", days[0], "-enddate", days[1]),
    )

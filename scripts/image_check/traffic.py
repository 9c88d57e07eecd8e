"""How this machine reaches its package indexes, lent to a build by mounts that leave nothing in the image."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_LENT = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"  # where Debian's own lies
PIP_CONF = "/etc/pip.conf"


def host_settings() -> dict[str, str]:
    """pip's own view of its files and variables; empty where there is no pip."""
    pip = ["pip"] if shutil.which("pip") else [sys.executable, "-m", "pip"]
    done = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, timeout=60)
    return parse_settings(done.stdout) if done.returncode == 0 else {}


def parse_settings(listing: str) -> dict[str, str]:
    """`global.timeout='60'` and `:env:.timeout='60'`, a line each -> timeout: 60; the environment wins."""
    found: dict[str, str] = {}
    lines = [line.partition("=") for line in listing.splitlines() if "=" in line]
    for place in ("global.", "install.", ":env:."):
        found |= {key.removeprefix(place): ast.literal_eval(value) for key, _, value in lines if key.startswith(place)}
    return found


def pip_conf(settings: Mapping[str, str], has_ca: bool) -> str:
    """The settings that make sense in a container: those that point at this machine's files do not."""
    lent = {key: " ".join(_not_files(settings[key])) for key in _LENT if key in settings}
    if has_ca:
        lent["cert"] = CA_BUNDLE
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in lent.items() if value)


def _not_files(value: str) -> list[str]:
    return [word for word in value.split() if not word.startswith("file:")]


def mounts(folder: Path) -> list[str]:
    """Options of `buildah build`; the file that they name is written to `folder`."""
    settings = host_settings()
    named = (settings.get("cert"), *map(os.environ.get, _CA_VARIABLES))
    ca = next((path for path in named if path and Path(path).is_file()), None)
    conf = folder / "pip.conf"
    conf.write_text(pip_conf(settings, has_ca=ca is not None))
    return [f"--volume={conf}:{PIP_CONF}:ro", *([f"--volume={ca}:{CA_BUNDLE}:ro"] if ca else [])]

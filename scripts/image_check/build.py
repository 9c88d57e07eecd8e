"""Builds the image; where no registry can be asked, on a stand-in for the official Python image."""

import json
from collections.abc import Sequence
from pathlib import Path

from image_check import traffic
from image_check.progress import step, tell
from image_check.workplace import Workplace

BASE = "python:3.11-slim"
_SUITE = "bookworm"  # the Debian that has Python 3.11
_SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
# What sets the official image apart from a plain Debian: Python's place, pip's freedom, apt that keeps no caches.
# The empty pip.conf is what the host's is mounted on.
_LIKE_THE_OFFICIAL_ONE = """
ln -s /usr/bin/python3 "$1/usr/local/bin/python3"
ln -s python3 "$1/usr/local/bin/python"
ln -s /usr/bin/pip3 "$1/usr/local/bin/pip"
rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED
printf 'Dir::Cache::pkgcache "";\\nDir::Cache::srcpkgcache "";\\n' > "$1/etc/apt/apt.conf.d/docker-clean"
: > "$1/etc/pip.conf"
rm -f "$1"/var/cache/apt/*.bin
"""


def make_stand_in(place: Workplace) -> None:
    """A small Debian with Python under the official image's name, for a FROM that is not changed."""
    tar = place.folder / "base.tar"
    sources = [path for path in _SOURCES if path.is_file() and _SUITE in path.read_text()][:1]
    with step(f"making a stand-in for {BASE}: Debian {_SUITE} with its Python"):
        place.run(
            "mmdebstrap",
            "--variant=minbase",
            "--include=ca-certificates,python3,python3-venv,python3-pip",
            f"--customize-hook={_LIKE_THE_OFFICIAL_ONE}",
            _SUITE,
            tar,
            *sources,
        )
        container = place.text("buildah", "from", "scratch")
        place.run("buildah", "add", "--quiet", container, tar, "/")
        place.run("buildah", "config", "--env", f"PATH={_PATH}", "--cmd", "python3", container)
        place.run("buildah", "commit", "--quiet", "--rm", container, BASE)
        tar.unlink()


def build(place: Workplace, checkout: Path, file: str, tag: str, arguments: Sequence[str], pull: bool) -> None:
    """arguments: `NAME=VALUE` of the Dockerfile's ARGs. pull: ask a registry for the base."""
    log = place.folder / "build.log"
    command = [
        "buildah",
        "build",
        "--isolation=chroot",
        "--pull-always" if pull else "--pull-never",
        "--format=docker",  # OCI's format has no HEALTHCHECK
        "--layers",
        *traffic.mounts(place.folder),
        *(f"--build-arg={argument}" for argument in arguments),
        f"--tag={tag}",
        f"--file={checkout / file}",
        str(checkout),
    ]
    with step(f"building {file} with {' '.join(arguments)}"):
        place.run(*command, log=log)


def tell_sizes(place: Workplace, tag: str) -> None:
    """Unpacked, in all and by layer, the newest first."""
    image = json.loads(place.text("podman", "image", "inspect", tag))[0]
    tell(f"    {tag}: {image['Size'] / 1e6:.0f} MB unpacked")
    for line in place.text("podman", "history", "--no-trunc", "--format={{.Size}}\t{{.CreatedBy}}", tag).splitlines():
        size, _, made_by = line.partition("\t")
        if not size.startswith("0 "):
            tell(f"    {size:>9}  {made_by.replace('/bin/sh -c ', '').replace('#(nop) ', '')[:80]}")

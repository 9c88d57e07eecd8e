"""A folder that holds all that buildah and podman keep, so that nothing of the machine's own set-up changes."""

import os
import resource
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from image_check.progress import CheckFailed, tell

Done = subprocess.CompletedProcess[str]
PACKAGES = ("buildah", "podman", "runc", "catatonit", "mmdebstrap")
_TOOLS = ("buildah", "podman", "runc", "mmdebstrap")
_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{folder}/store"
runroot = "{folder}/run"
"""
# Some machines let nobody raise RLIMIT_NOFILE, and crun refuses mixed cgroup hierarchies: hence the limits and runc.
_CONTAINERS = """\
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc=4096:4096"]
netns = "host"
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
lock_type = "file"
tmp_dir = "{folder}/tmp"
volume_path = "{folder}/volumes"
"""
_MOST_FILES = 20000
_LIMIT_S = 1800.0  # NVIDIA's libraries over a slow line


def install_tools() -> None:
    """With apt where some lack. Raises CheckFailed where that is not ours to do."""
    lacking = [tool for tool in _TOOLS if shutil.which(tool) is None]
    remedy = f"apt-get install {' '.join(PACKAGES)}"
    if os.geteuid() != 0:
        raise CheckFailed(f"building and running images this way needs root (and, once: {remedy})")
    if not lacking:
        return
    if shutil.which("apt-get") is None:
        raise CheckFailed(f"{', '.join(lacking)} not found; on Debian or Ubuntu: {remedy}")
    tell(f"installing {' '.join(PACKAGES)} with apt ...")
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-qq", "--no-install-recommends", *PACKAGES]):
        _run(["apt-get", *command], environ)


class Workplace:
    """`with Workplace(folder) as place`: the folder is made, and removed with all that it holds unless kept."""

    def __init__(self, folder: Path, keep: bool) -> None:
        self.folder = folder
        self._keep = keep
        self._environ = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
        }

    def __enter__(self) -> "Workplace":
        self._claim()
        (self.folder / "storage.conf").write_text(_STORAGE.format(folder=self.folder))
        files = min(_MOST_FILES, _hard_limit_of_files())
        (self.folder / "containers.conf").write_text(_CONTAINERS.format(folder=self.folder, files=files))
        return self

    def __exit__(self, *_: object) -> None:
        self.run("podman", "rm", "--all", "--force", "--time", "0", check=False)
        if self._keep:
            tell(f"kept: {self.folder}; to use it: {self.exports()}")
            return
        self.run("buildah", "rm", "--all", check=False)
        for mounted in _mounts_under(self.folder):
            subprocess.run(["umount", "--lazy", mounted], check=False)
        shutil.rmtree(self.folder)

    def _claim(self) -> None:
        """It is removed with all that it holds, so it must be new, empty, or one that was kept."""
        mark = self.folder / ".image-check"
        if self.folder.exists() and not mark.exists() and any(self.folder.iterdir()):
            raise CheckFailed(f"{self.folder} holds other things; want a folder that is new or empty (--work)")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        mark.touch()

    def exports(self) -> str:
        names = ("CONTAINERS_STORAGE_CONF", "CONTAINERS_CONF")
        return "export " + " ".join(f"{name}={self._environ[name]}" for name in names)

    def run(self, *command: str | Path, check: bool = True, log: Path | None = None) -> Done:
        """A command on this folder's store. log: takes all output. Raises CheckFailed with what it said."""
        return _run(list(map(str, command)), self._environ, check, log)

    def text(self, *command: str | Path) -> str:
        return self.run(*command).stdout.strip()


def _run(command: list[str], environ: Mapping[str, str], check: bool = True, log: Path | None = None) -> Done:
    try:
        done = subprocess.run(command, env=dict(environ), text=True, timeout=_LIMIT_S, capture_output=True)
    except subprocess.TimeoutExpired as error:
        raise CheckFailed(f"{' '.join(command[:3])} ... did not end within {_LIMIT_S:.0f} s") from error
    if log is not None:
        log.write_text(done.stdout + done.stderr)
    if check and done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise CheckFailed(f"{' '.join(command[:3])} ... ended with {done.returncode}:\n{last}")
    return done


def _hard_limit_of_files() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return _MOST_FILES if hard == resource.RLIM_INFINITY else hard


def _mounts_under(folder: Path) -> list[str]:
    """The mount points in a folder, inner ones first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted((point for point in points if Path(point).is_relative_to(folder)), reverse=True)

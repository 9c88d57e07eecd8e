"""Packs what benchmarks/gpu.py needs for a GPU machine without a network: one folder that travels with the checkout.

Made where there is a package index. In it: wheels of what the GPU machine lacks (our own among them: entry points need
an installed distribution), ONNX Runtime's CUDA build in one packed part, and run.sh, which unpacks, installs beside
what is there, and runs. The folder and the checkout together must be small enough for one transfer.
usage: python -m benchmarks.gpu_carry --ort-part DIR [--python-version 3.12] [--there NAME ...] [--limit-mib 64]
       python -m benchmarks.gpu_carry --add PACKAGE ...   a second transfer, for what the first has no room for
       python -m benchmarks.gpu_carry --cpu --bare        for a try on a CPU, in an empty environment
"""

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.harness import ROOT
from benchmarks.record import commit

MIB = 2**20
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "server")
# Large packages that a GPU machine with PyTorch and ONNX has; small ones travel, since theirs may be too old.
THERE = ("numpy", "ml-dtypes", "opencv-python-headless", "uvloop")
BENCHMARK_NEEDS = ("onnx", "packaging")  # beside the package's own requirements; on the GPU machine they are there
PLATFORMS = ("2_39", "2_34", "2_28", "2_27", "2_24", "2_17", "2_12", "2_5", "2014", "1")
UNPACK = "unpack_ort_gpu.sh"
# Of ONNX Runtime's Python tools, which the packed build leaves out, what the fp16 conversion needs.
LEFT_OUT = ("transformers/__init__.py", "transformers/float16.py")
SCRIPTS = ROOT / "benchmarks/gpu_machine"


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Pack benchmarks/gpu.py's needs for a GPU machine without a network.")
    runtime = parser.add_mutually_exclusive_group(required=True)
    runtime.add_argument("--ort-part", type=Path, metavar="DIR", help="the packed CUDA build: one part, its unpacker")
    runtime.add_argument("--cpu", action="store_true", help="the CPU build from the package index instead, for a try")
    runtime.add_argument("--add", nargs="+", metavar="PACKAGE", help="only these and what they need, to add later")
    parser.add_argument("--python-version", default="3.12", help="of the GPU machine (default %(default)s)")
    parser.add_argument("--there", nargs="*", default=list(THERE), metavar="NAME", help="what it has")
    parser.add_argument("--bare", action="store_true", help="it has nothing at all")
    parser.add_argument("--limit-mib", type=float, default=64, help="of folder and checkout (default %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / ".gpu_carry", help="the folder; it is emptied first")
    return parser.parse_args(words)


def main() -> None:
    options = arguments()
    shutil.rmtree(options.out, ignore_errors=True)
    wheels = options.out / "wheels"
    wheels.mkdir(parents=True)
    wanted = options.add or wanted_by_the_benchmark(options, wheels)
    needed = resolve(wanted, options.python_version)
    there = set() if options.bare else {normal(name) for name in options.there}
    download([f"{name}=={version}" for name, version in needed.items() if name not in there], options, wheels)
    if options.ort_part:
        copy_part(options.ort_part, options.out / "ort")
        copy_left_out(options.out / "left_out")
    script = "add.sh" if options.add else "run.sh"
    shutil.copyfile(SCRIPTS / script, options.out / script)
    (options.out / "settings").write_text(f"python_version={options.python_version}\ncommit={commit()}\n")
    report(options.out, script, options.limit_mib)


def wanted_by_the_benchmark(options: argparse.Namespace, wheels: Path) -> list[str]:
    own = build_wheel(wheels)
    return [f"{own}[cpu]" if options.cpu else str(own), *(BENCHMARK_NEEDS if options.bare else ())]


def build_wheel(folder: Path) -> Path:
    """Ours, from a copy of the sources: a build in the checkout would pack what an earlier one left there."""
    with tempfile.TemporaryDirectory() as name:
        for source in SOURCES:
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copyfile
            copy(ROOT / source, Path(name) / source)
        _pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), name)
    return next(folder.glob("accelserve-*.whl"))


def resolve(requirements: Sequence[str], python_version: str) -> dict[str, str]:
    """Normal name -> version of all that the requirements need in the end, ours left out."""
    with tempfile.TemporaryDirectory() as name:
        report = Path(name) / "report.json"
        where = ["--target", name, "--report", str(report), *_for(python_version)]
        _pip("install", "--quiet", "--dry-run", "--ignore-installed", *where, *requirements)
        found = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    return {normal(one["name"]): one["version"] for one in found if one["name"] != "accelserve"}


def download(pinned: Sequence[str], options: argparse.Namespace, folder: Path) -> None:
    _pip("download", "--quiet", "--no-deps", "--dest", str(folder), *_for(options.python_version), *pinned)


def copy_part(source: Path, folder: Path) -> None:
    """Exits where the packed build is in more parts than one: each would need a transfer of its own."""
    parts = sorted(source.glob("ort_gpu.part.*"))
    if len(parts) != 1 or not (source / UNPACK).is_file():
        sys.exit(f"--ort-part {source}: want one ort_gpu.part.* and {UNPACK}, found {[part.name for part in parts]}")
    listed = (source / "parts.sha256").read_text().split()[1::2]
    if listed != [parts[0].name]:
        sys.exit(f"--ort-part {source}: it is one of {len(listed)} parts, and one transfer holds one; pack it slim")
    shutil.copytree(source, folder)


def copy_left_out(folder: Path) -> None:
    """From the ONNX Runtime that is installed here."""
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        sys.exit("onnxruntime is not installed here: run scripts/install dev")
    for name in LEFT_OUT:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(spec.origin).parent / name, folder / name)


def report(folder: Path, script: str, limit_mib: float) -> None:
    """Say what there is and how to use it; exit 1 where it is too much for one transfer."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        print(f"{path.stat().st_size / MIB:8.2f} MiB  {path.relative_to(folder)}")
    carried, tree = total_bytes(files), total_bytes(checkout_files(folder))
    print(f"{carried / MIB:8.2f} MiB  in {folder}\n{tree / MIB:8.2f} MiB  in the checkout")
    print(f"{(carried + tree) / MIB:8.2f} MiB  together, of {limit_mib:g} MiB")
    if carried + tree > limit_mib * MIB:
        sys.exit(f"It is too much by {(carried + tree) / MIB - limit_mib:.2f} MiB: leave out what is --there")
    print(f"\nOn the GPU machine, from the checkout's root:\n  bash {folder.name}/{script}")
    if script == "run.sh":
        print("with the arguments of benchmarks.gpu: --out-dir DIR; --only SECTION where a command's time is limited")


def checkout_files(carried: Path) -> list[Path]:
    """Tracked files, and untracked ones that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    paths = {ROOT / name for name in listed.split("\0") if name}
    return [path for path in paths if path.is_file() and not path.is_relative_to(carried.resolve())]


def total_bytes(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files)


def normal(name: str) -> str:
    """As package indexes compare names (PEP 503), but for runs of separators, which no name here has."""
    return name.lower().replace("_", "-").replace(".", "-")


def _for(python_version: str) -> list[str]:
    platforms = [
        word for name in PLATFORMS for word in ("--platform", f"manylinux{'_' if '_' in name else ''}{name}_x86_64")
    ]
    return ["--only-binary=:all:", "--python-version", python_version, "--implementation", "cp", *platforms]


def _pip(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", *words, "--disable-pip-version-check"])
    if done.returncode:
        sys.exit(f"pip {words[0]} ended with {done.returncode}")


if __name__ == "__main__":
    main()

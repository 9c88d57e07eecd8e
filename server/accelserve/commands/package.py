"""`accelserve package`: a registered model, and perhaps its script, as a build context for an image."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from accelserve.commands.parsing import Commands, add_json
from accelserve.commands.stored import Typed, add_store, check_openable, open_store
from accelserve.config_sources import ConfigError
from accelserve.errors import ExitCode, Kind, ScoringError

if TYPE_CHECKING:
    from accelserve.models.store import StoredModel
    from accelserve.packaging.engines import Step
    from accelserve.packaging.packing import Wish
    from accelserve.packaging.translation import Plan

_TARGETS = ("gpu", "cpu", "fpga")

_EPILOG = """\
examples:
  accelserve package resnet50                   a context in resnet50-3-image/, and the commands that build it
  accelserve package resnet50:3 --target gpu --entry-script score.py --conda myenv.yml --tag resnet50:3 --build
  accelserve package --entry-script score.py --source-directory app --target cpu --out context

The folder holds a Dockerfile on accelserve's own image (Dockerfile.gpu or Dockerfile.fpga), the model, the script,
requirements.txt, the source of accelserve itself where it is there, and accelserve-package.json with the SHA-256 of
every file. The same inputs make the same bytes. It appears whole or not at all.
What becomes of each entry of the conda file is told on standard error; docs/package.md has the table.

exit codes: 0 ok, 1 the build failed, 2 usage, or a conda file that cannot be read, 3 the script or the model cannot
be packaged, 4 no such model, or nothing here that builds images, 5 the folder exists or cannot be written
"""


def add(commands: Commands) -> None:
    package = commands.add_parser(
        "package",
        help="make a build context of a registered model and its entry script",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    package.add_argument("model", nargs="?", metavar="NAME[:VERSION]", help="a registered model: NAME is its newest")
    package.add_argument("--target", choices=_TARGETS, default="gpu", help="which image to start from (default: gpu)")
    package.add_argument("--entry-script", type=Path, metavar="FILE.py", help="init() and run(), which then answer")
    package.add_argument(
        "--source-directory", type=Path, metavar="DIR", help="the folder that goes with the script (default: it alone)"
    )
    package.add_argument(
        "--conda", type=Path, metavar="FILE.yml", help="a conda environment file: what the script needs"
    )
    package.add_argument(
        "--model-files",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="what else the script finds by get_model_path; may be repeated",
    )
    package.add_argument(
        "--serve-model",
        action=argparse.BooleanOptionalAction,
        help="the server loads the model; with an entry script, for accelserve.score(...) in it (default: only without"
        " an entry script, which opens the model by itself)",
    )
    package.add_argument("--legacy-tensorflow", action="store_true", help="`tensorflow` is TensorFlow 1 for the script")
    package.add_argument("--base", default="", metavar="IMAGE", help="start from this image of accelserve")
    package.add_argument("--out", type=Path, metavar="DIR", help="the folder to make (default: NAME-VERSION-image)")
    package.add_argument("--tag", metavar="IMAGE", help="the image's name (default: NAME:VERSION)")
    package.add_argument("--build", action="store_true", help="build it, with docker, podman or buildah")
    add_store(package)
    add_json(package)
    package.set_defaults(run=_package)


def _package(parsed: argparse.Namespace) -> ExitCode:
    from accelserve.packaging.context import write_context
    from accelserve.packaging.packing import about, check_model, check_wish, likely_secrets, pieces, requirements, steps
    from accelserve.packaging.provided import requirements_of_extra

    wish = _wish(parsed)
    check_wish(wish)
    _tell_plan(wish.plan, parsed.conda)
    output = parsed.out or Path(f"{_name_of(wish)}-image")
    required = requirements(wish, requirements_of_extra("tensorflow"))
    held = open_store(parsed).hold(wish.model.name, wish.model.version, "accelserve package") if wish.model else None
    try:
        made = pieces(wish, required)
        for place in likely_secrets(made):
            print(
                f"accelserve: {place} goes into the image, for everybody who can pull it: is it secret?",
                file=sys.stderr,
            )
        digests = write_context(output, made, about(wish, required), lambda found: check_model(wish, found))
    finally:
        if held is not None:
            held.release()
    todo = steps(wish, output)
    code = _build(todo) if parsed.build else ExitCode.OK
    _tell(parsed, wish, output, len(digests), todo)
    return code


def _wish(parsed: argparse.Namespace) -> "Wish":
    """Raises ConfigError with all mistakes, ScoringError for a model that is not there or a bad script."""
    from accelserve.entry_script.check import script_problems
    from accelserve.packaging.conda_file import CondaFile, read_conda_file
    from accelserve.packaging.dockerfile import is_image
    from accelserve.packaging.packing import Wish
    from accelserve.packaging.provided import packages_in_image
    from accelserve.packaging.source_tree import source_tree
    from accelserve.packaging.translation import translated

    typed = Typed()
    name, version = typed.reference(parsed.model) if parsed.model is not None else ("", None)
    files = _model_files(parsed.model_files, typed)
    script, folder = _script(parsed, typed)
    for flag in ("base", "tag"):
        if (image := getattr(parsed, flag)) and not is_image(image):
            problem = f"--{flag} {image!r}: want an image's name, for example registry.example.org/resnet50:3"
            typed.problems.append(problem)
    conda = CondaFile((), ())
    try:
        conda = read_conda_file(parsed.conda) if parsed.conda is not None else conda
    except ConfigError as error:
        typed.problems += error.problems
    typed.check()
    if script is not None and (wrong := script_problems(script)):
        raise ScoringError(Kind.PRECONDITION, "\n".join(wrong))
    model = open_store(parsed).find(name, version) if name else None
    serve_model = script is None if parsed.serve_model is None else parsed.serve_model
    if model is not None:
        check_openable(model, script is not None, serve_model)
    plan = translated(conda, packages_in_image())
    if plan.needs:
        plan = translated(conda, packages_in_image(plan.needs))
    return Wish(
        target=parsed.target,
        model=model,
        serve_model=serve_model,
        script=script,
        source_directory=folder,
        model_files=files,
        legacy_tensorflow=parsed.legacy_tensorflow,
        plan=plan,
        base=parsed.base,
        source=source_tree(),
        tag=parsed.tag or _default_tag(model, script),
    )


def _default_tag(model: "StoredModel | None", script: Path | None) -> str:
    from accelserve.packaging.dockerfile import default_tag

    if model is not None:
        return default_tag(model.name, str(model.version))
    assert script is not None
    return default_tag(script.stem, "latest")


def _name_of(wish: "Wish") -> str:
    if wish.model is not None:
        return f"{wish.model.name}-{wish.model.version}"
    assert wish.script is not None
    return wish.script.stem


def _script(parsed: argparse.Namespace, typed: Typed) -> tuple[Path | None, Path | None]:
    """Both absolute; a script may be named from its folder, as Azure ML's are."""
    from accelserve.packaging.dockerfile import is_sayable

    if parsed.entry_script is None:
        if parsed.model is None:
            typed.problems.append("say what to package: NAME[:VERSION] of a registered model, or --entry-script")
        given = [
            flag for flag in ("source_directory", "model_files", "conda", "legacy_tensorflow") if getattr(parsed, flag)
        ]
        typed.problems += [f"--{flag.replace('_', '-')} is for an --entry-script" for flag in given]
        if parsed.serve_model is False:
            typed.problems.append("--no-serve-model: without an entry script nobody but the server can answer")
        return None, None
    script, folder = parsed.entry_script.absolute(), None
    if parsed.source_directory is not None:
        folder = Path(os.path.normpath(parsed.source_directory.absolute()))
        here, inside = (Path(os.path.normpath(path)) for path in (script, folder / parsed.entry_script))
        script = inside if inside.is_file() and not here.is_relative_to(folder) else here
        if not folder.is_dir():
            typed.problems.append(f"--source-directory {folder}: there is no such folder")
        elif not script.is_relative_to(folder):
            typed.problems.append(f"--entry-script {script} is not in --source-directory {folder}")
    if not script.is_file():
        typed.problems.append(f"--entry-script {script}: there is no such file")
        return None, None
    if not is_sayable(str(script.relative_to(folder) if folder and script.is_relative_to(folder) else script.name)):
        typed.problems.append(f"--entry-script {str(script)!r}: no Dockerfile can say this name; give it another")
    return script, folder


def _model_files(texts: Sequence[str], typed: Typed) -> tuple[tuple[str, Path], ...]:
    """Names become folders in the image, and are written into its Dockerfile with the files' own."""
    from accelserve.packaging.dockerfile import is_sayable

    found = sorted(typed.named_files("--model-files", texts).items())
    for name, path in found:
        if "/" in name or name in (".", "..") or "'" in name + path.name or not is_sayable(name + path.name):
            typed.problems.append(f"--model-files {f'{name}={path}'!r}: no image can have this name; give it another")
    return tuple(found)


def _tell_plan(plan: "Plan", conda: Path | None) -> None:
    for told in plan.told:
        became = f" -> {told.to}" if told.to else ""
        entry = f"{told.text}{became}: " if told.text else ""
        print(f"accelserve: {conda}, line {told.line}: {entry}{told.why}", file=sys.stderr)
    for warning in plan.warnings:
        print(f"accelserve: {conda}, {warning}", file=sys.stderr)


def _build(todo: "Sequence[Step]") -> ExitCode:
    from accelserve.packaging.engines import find_engine, run

    engine = find_engine()
    if engine is None:
        print(
            "accelserve: nothing here builds images: neither docker with its daemon, podman nor buildah",
            file=sys.stderr,
        )
        return ExitCode.NOT_FOUND
    for step in todo:
        command = step.command(engine)
        print(f"+ {shlex.join(command)}", file=sys.stderr, flush=True)
        if code := run(command, sys.stderr.fileno()):
            print(f"accelserve: {engine} ended with {code}", file=sys.stderr)
            return ExitCode.UNFORESEEN
    return ExitCode.OK


def _tell(parsed: argparse.Namespace, wish: "Wish", output: Path, files: int, todo: "Sequence[Step]") -> None:
    commands = [step.command("docker") for step in todo]
    if parsed.json:
        document = {"context": str(output), "files": files, "base": wish.base_image, "tag": wish.tag, "build": commands}
        print(json.dumps(document, indent=2))
        return
    print(f"{output} is the context of {wish.tag}: {files} files, on {wish.base_image}")
    if not parsed.build:
        print("build it:", *(f"  {shlex.join(command)}" for command in commands), sep="\n")

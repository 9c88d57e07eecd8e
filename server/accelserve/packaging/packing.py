"""From what is asked for to the files of the context, its Dockerfile, and the steps that build it."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import accelserve
from accelserve.config_sources import ConfigError
from accelserve.deploy import image_layout
from accelserve.deploy.script_folder import files_of_folder, files_to_take
from accelserve.errors import Kind, ScoringError
from accelserve.models.manifest import FILE_NAME, files_of_manifest
from accelserve.models.store import StoredModel
from accelserve.packaging.context import Piece, is_within, pieces_of_folder
from accelserve.packaging.dockerfile import DOCKERIGNORE, Recipe, dockerfile
from accelserve.packaging.engines import Step
from accelserve.packaging.source_tree import build_files
from accelserve.packaging.translation import TENSORFLOW, Plan

_NEED_TENSORFLOW = ("saved_model", "cut")
_SECRETS = re.compile(
    r"(^|/)(\.env(\.[^/]*)?|keys\.json|id_[a-z0-9]+|\.netrc|\.pypirc|\.git-credentials|credentials|secrets?\.[^/]*"
    r"|[^/]*\.(pem|key|p12|pfx|kdbx|ppk|jks|keystore))$",
    re.IGNORECASE,
)
_BASE = "base"  # the folder of our own source in the context


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for.

    script: an entry script; source_directory: the folder that goes with it, None for the script alone. model_files:
    (name, path) of what else it looks up. base: an image to start from, "" for accelserve's own of this target.
    source: accelserve's own source, to build that from; None where it is not there or not wanted.
    """

    target: str
    model: StoredModel | None = None
    serve_model: bool = True
    script: Path | None = None
    source_directory: Path | None = None
    model_files: tuple[tuple[str, Path], ...] = ()
    legacy_tensorflow: bool = False
    plan: Plan = field(default_factory=Plan)
    tag: str = ""
    base: str = ""
    source: Path | None = None

    @property
    def extras(self) -> str:
        """Of accelserve's own image: its EXTRAS."""
        by_model = self.model is not None and self.serve_model and self.model.format in _NEED_TENSORFLOW
        wanted = by_model or self.legacy_tensorflow or TENSORFLOW in self.plan.needs
        return TENSORFLOW if wanted and self.target != "fpga" else ""

    @property
    def base_image(self) -> str:
        return self.base or f"accelserve:{self.target}{'-' + self.extras if self.extras else ''}"

    @property
    def title(self) -> str:
        parts = (self.model.reference if self.model else "", self.script.name if self.script else "")
        return " with ".join(part for part in parts if part)


def check_wish(wish: Wish) -> None:
    """Raises ScoringError(PRECONDITION) for a model that the target cannot run."""
    model = wish.model
    if wish.target == "fpga" and wish.serve_model and model is not None and model.format in _NEED_TENSORFLOW:
        message = (
            f"{model.reference} is a {model.format}, and the fpga image has no TensorFlow: make it an ONNX model, or "
            "one for cards, with accelserve convert, register that and package it"
        )
        raise ScoringError(Kind.PRECONDITION, message)


def requirements(wish: Wish, of_tensorflow: tuple[str, ...]) -> tuple[str, ...]:
    """of_tensorflow: what an image without that extra has to install for a script that wants it."""
    wanted = (wish.legacy_tensorflow or TENSORFLOW in wish.plan.needs) and wish.target == "fpga"
    return (*(of_tensorflow if wanted else ()), *wish.plan.requirements)


def pieces(wish: Wish, required: tuple[str, ...]) -> list[Piece]:
    """Raises ConfigError for what of the script's folder cannot be taken."""
    made = list(_own_pieces(wish))
    recipe = Recipe(
        base=wish.base_image,
        title=wish.title,
        has_requirements=bool(required),
        has_models=wish.model is not None,
        has_app=wish.script is not None,
        has_files=bool(wish.model_files),
        environment=environment(wish),
    )
    made += [Piece("Dockerfile", dockerfile(recipe).encode()), Piece(".dockerignore", DOCKERIGNORE.encode())]
    if required:
        made.append(Piece("requirements.txt", "".join(f"{line}\n" for line in required).encode()))
    if wish.source is not None and not wish.base:
        files = build_files(wish.source, _dockerfile_of(wish.target))
        made += [Piece(f"{_BASE}/{path.relative_to(wish.source).as_posix()}", path) for path in files]
    return made


def _own_pieces(wish: Wish) -> Iterator[Piece]:
    if wish.model is not None:
        place = f"models/{wish.model.name}"
        files = files_of_folder(wish.model.path, left_out=())
        yield from pieces_of_folder(wish.model.path, f"{place}/{wish.model.version}", files)
        yield from _beside(wish.model.path.parent, place)
    if wish.script is not None and wish.source_directory is None:
        yield Piece(f"app/{wish.script.name}", wish.script)
    if wish.script is not None and wish.source_directory is not None:
        files = files_to_take(wish.source_directory, wish.script)
        yield from pieces_of_folder(wish.source_directory, "app", files)
    for name, path in wish.model_files:
        place = f"files/{name}/{path.name}"
        if path.is_dir():
            yield from pieces_of_folder(path, place, files_of_folder(path))
        else:
            yield Piece(place, path)


def _beside(home: Path, place: str) -> Iterator[Piece]:
    """The model's own file and its labels. Raises ConfigError for labels elsewhere: the image has no place for them."""
    own = home / FILE_NAME
    for file in files_of_manifest(own):
        within = file.relative_to(home).as_posix() if file.is_relative_to(home) else str(file)
        if not is_within(within):
            raise ConfigError([f"{own}: labels: {within} is not in {home}; put the file there, and say its name"])
        if file.is_file():
            yield Piece(f"{place}/{within}", file)


def likely_secrets(found: Sequence[Piece]) -> list[str]:
    """Of the user's files those whose names say that nobody else should have them."""
    own = ("app/", "files/", "models/")
    return [piece.place for piece in found if piece.place.startswith(own) and _SECRETS.search(piece.place)]


def environment(wish: Wish) -> dict[str, str]:
    """What the container serves when it is told nothing; `deploy` tells it all by flags, which win."""
    told = {"MODEL_NAME": "", "MODEL_BASE_PATH": ""}  # of the base image, which would serve another
    if wish.model is not None and wish.serve_model:
        told["ACCELSERVE_MODEL"] = f"{wish.model.name}={image_layout.model_folder(wish.model.name)}"
    told["ACCELSERVE_POLL_INTERVAL"] = "0"  # an image does not change
    files = {name: image_layout.files_path(name, path) for name, path in wish.model_files}
    if wish.model is not None and not wish.serve_model:
        files[wish.model.name] = image_layout.model_folder(wish.model.name)
    if wish.script is not None:
        told["ACCELSERVE_ENTRY_SCRIPT"] = image_layout.script_path(wish.script, wish.source_directory)
        told["AML_APP_ROOT"] = image_layout.APP
        if files:
            told["ACCELSERVE_MODEL_FILES"] = " ".join(f"'{name}={path}'" for name, path in sorted(files.items()))
        if wish.model is not None:
            told["AZUREML_MODEL_DIR"] = image_layout.version_folder(wish.model.name, wish.model.version)
        if wish.legacy_tensorflow:
            told["ACCELSERVE_LEGACY_TENSORFLOW"] = "true"
    return told


def about(wish: Wish, required: tuple[str, ...]) -> dict[str, Any]:
    """For the manifest: of what the context was made; nothing of when and where."""
    model = wish.model
    return {
        "accelserve": accelserve.__version__,
        "base": wish.base_image,
        "entry_script": image_layout.script_path(wish.script, wish.source_directory) if wish.script else None,
        "model": {"name": model.name, "version": model.version, "sha256": model.sha256} if model else None,
        "requirements": list(required),
        "target": wish.target,
        "translated": [asdict(told) for told in wish.plan.told],
    }


def check_model(wish: Wish, digests: Mapping[str, str]) -> None:
    """Whether the model in the context is the one that was registered. Raises ScoringError(CONFLICT)."""
    if wish.model is None:
        return
    folder = f"models/{wish.model.name}/{wish.model.version}/"
    found = {place.removeprefix(folder): digest for place, digest in digests.items() if place.startswith(folder)}
    if _sha256(found) != wish.model.sha256:
        message = f"{wish.model.reference}: its files in {wish.model.path} are not those that were registered"
        raise ScoringError(Kind.CONFLICT, f"{message}; register it anew")


def _sha256(digests: Mapping[str, str]) -> str:
    """As the store's record has it: of the only file, or of `sha256sum`'s listing."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = sorted((name.encode("utf-8", "surrogateescape"), digest.encode()) for name, digest in digests.items())
    return hashlib.sha256(b"".join(b"%s  %s\n" % (digest, name) for name, digest in lines)).hexdigest()


def steps(wish: Wish, output: Path) -> tuple[Step, ...]:
    """accelserve's own image first, where the context holds its source."""
    own: tuple[Step, ...] = ()
    if wish.source is not None and not wish.base:
        accel = (("ACCEL", wish.target),) if wish.target != "fpga" else ()
        extras = (("EXTRAS", wish.extras),) if wish.extras else ()
        own = (Step(output / _BASE, wish.base_image, _dockerfile_of(wish.target), (*accel, *extras)),)
    return (*own, Step(output, wish.tag))


def _dockerfile_of(target: str) -> str:
    return "Dockerfile.fpga" if target == "fpga" else "Dockerfile.gpu"

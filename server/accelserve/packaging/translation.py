"""What of a conda file the image has, what is dead, what goes on: one table, told entry by entry."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from accelserve.packaging.conda_file import CondaFile, Wanted

TENSORFLOW = "tensorflow"
_CREDENTIALS = re.compile(r"://(?!git@)[^/@\s]+@")  # git@ is everybody's name


@dataclass(frozen=True, slots=True)
class Rule:
    """to: pip's name of it, "" for nothing to install. why: what the user is told. needs: an extra of the image."""

    why: str
    to: str = ""
    needs: str = ""


_IN_IMAGE = "the image has its own"
_NATIVE = "a library that the image's wheels bring with them, or have no need of"
_TENSORFLOW = Rule(
    "dead: the image has TensorFlow 2 for the CPU, and GPUs and cards are used by the server through ONNX; "
    "a script of TensorFlow 1 runs with --legacy-tensorflow",
    needs=TENSORFLOW,
)
_PROVIDED = "provided by accelserve: azureml.core.model.Model.get_model_path, azureml.contrib.services, /score"
_AZUREML = Rule("no part of it is provided but azureml.core.model.Model and azureml.contrib.services; left out")

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "python": Rule("the image's Python is 3.11"),
        **dict.fromkeys(("pip", "setuptools", "wheel", "conda"), Rule(_IN_IMAGE)),
        **dict.fromkeys(
            (
                *("tensorflow", "tensorflow-gpu", "tensorflow-cpu", "tensorflow-base", "tensorflow-mkl"),
                *("tensorflow-eigen", "tensorflow-gpu-base", "tensorflow-estimator", "tf-nightly", "tf-nightly-gpu"),
            ),
            _TENSORFLOW,
        ),
        "keras": Rule("the image's TensorFlow brings its own", needs=TENSORFLOW),
        "keras-gpu": Rule("the image's TensorFlow brings its own", needs=TENSORFLOW),
        "tensorboard": Rule("nothing in a server shows it; left out"),
        **dict.fromkeys(
            (
                *("azureml-core", "azureml-defaults", "azureml-contrib-services", "azureml-inference-server-http"),
                *("azureml-model-management-sdk", "azureml-sdk", "azureml-telemetry", "azureml-dataset-runtime"),
                "azureml-dataprep",
            ),
            Rule(_PROVIDED),
        ),
        "azureml-accel-models": Rule("the server takes its client's calls; recipes and converter are accelserve's"),
        "applicationinsights": Rule("its service is gone; the server has logs and /metrics"),
        **dict.fromkeys(
            ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
            Rule("the image has the one that fits its device"),
        ),
        **dict.fromkeys(
            (
                *(
                    "cudatoolkit",
                    "cudnn",
                    "cupti",
                    "nccl",
                    "cuda",
                    "cuda-toolkit",
                    "mkl",
                    "mkl-service",
                    "openblas",
                    "blas",
                ),
                *("libgcc", "libgcc-ng", "libgcc-mutex", "libstdcxx-ng", "libgomp", "libopenblas", "openssl"),
                *(
                    "ca-certificates",
                    "intel-openmp",
                    "libprotobuf",
                    "zlib",
                    "sqlite",
                    "xz",
                    "tk",
                    "readline",
                    "ncurses",
                ),
            ),
            Rule(_NATIVE),
        ),
        "opencv": Rule("PyPI's name of it, without windows", "opencv-python-headless"),
        "py-opencv": Rule("PyPI's name of it, without windows", "opencv-python-headless"),
        "opencv-python": Rule("the one without windows, which needs no X libraries", "opencv-python-headless"),
        "pytorch": Rule("PyPI's name of it", "torch"),
        "pytorch-cpu": Rule("PyPI's name of it", "torch"),
        "pytorch-gpu": Rule("PyPI's name of it", "torch"),
        "sklearn": Rule("PyPI's name of it", "scikit-learn"),
        "msgpack-python": Rule("PyPI's name of it", "msgpack"),
        "pil": Rule("PyPI's name of it", "pillow"),
        "pytables": Rule("PyPI's name of it", "tables"),
    }
)
KNOWN_CHANNELS = frozenset({"defaults", "conda-forge", "anaconda", "main", "nodefaults", "pytorch", "nvidia", "intel"})


@dataclass(frozen=True, slots=True)
class Told:
    """What became of an entry; to is "" where nothing is installed for it."""

    line: int
    text: str
    to: str
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """requirements: for pip, in the order of the file. needs: extras that the base image must have.

    told: every entry that is not kept as it is. warnings: about the file as a whole.
    """

    requirements: tuple[str, ...] = ()
    needs: frozenset[str] = frozenset()
    told: tuple[Told, ...] = ()
    warnings: tuple[str, ...] = ()


def translated(file: CondaFile, in_image: Collection[str]) -> Plan:
    """in_image: the packages that the server itself needs, as pip names them; their versions are the image's."""
    requirements: dict[str, str] = {}
    needs: set[str] = set()
    told: list[Told] = []
    for wanted in file.wanted:
        requirement, rule, why = _one(wanted, in_image)
        if rule is not None and rule.needs:
            needs.add(rule.needs)
        if why:
            told.append(Told(wanted.line, wanted.text, requirement, why))
        if requirement:
            slot = _slot(wanted, requirement)
            if slot in requirements and requirements[slot] != requirement:
                told.append(Told(wanted.line, wanted.text, requirement, f"takes the place of {requirements[slot]}"))
            requirements[slot] = requirement
    told += [Told(line, "", "", remark) for line, remark in file.remarks]
    return Plan(tuple(requirements.values()), frozenset(needs), tuple(told), tuple(_channels(file)))


def _one(wanted: Wanted, in_image: Collection[str]) -> tuple[str, Rule | None, str]:
    """The requirement, the rule that made it, and why it is another than what stands there."""
    rule = RULES.get(wanted.name)
    if rule is None and wanted.name.startswith("azureml-"):
        rule = _AZUREML
    name = rule.to if rule is not None and rule.to else wanted.name
    if rule is not None and not rule.to:
        return "", rule, rule.why
    if _canonical(name) in in_image:
        if not wanted.version and not wanted.rest:
            return "", rule, ""
        return "", rule, "the server needs its own version of it, which the image has"
    if wanted.rest:
        return wanted.rest, rule, _told_of_address(wanted.rest)
    return f"{name}{wanted.version}", rule, rule.why if rule is not None else ""


def _slot(wanted: Wanted, requirement: str) -> str:
    """Of two with the same one pip wants the later alone: not of bare addresses, nor of what is for some pythons."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    return requirement if not wanted.name or ";" in wanted.rest or name is None else _canonical(name[0])


def _told_of_address(rest: str) -> str:
    if "://" not in rest:
        return ""
    secret = "; what stands in it before the @ is in requirements.txt and the manifest too, for all who have the folder"
    return f"taken from an address: nobody checks what it is{secret if _CREDENTIALS.search(rest) else ''}"


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _channels(file: CondaFile) -> list[str]:
    return [
        f"line {line}: the channel {text} is not known, and all packages come from PyPI: see that it has the same there"
        for line, text in file.channels
        if text.rstrip("/").rpartition("/")[2] not in KNOWN_CHANNELS
    ]

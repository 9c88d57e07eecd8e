"""What becomes of the entries of a conda file."""

import re
from pathlib import Path

import pytest

from accelserve.packaging.conda_file import parse_conda_file
from accelserve.packaging.provided import packages_in_image, requirements_of_extra
from accelserve.packaging.translation import RULES, Plan, translated

PAGE = Path(__file__).parents[2] / "docs" / "package.md"
IN_IMAGE = frozenset({"numpy", "protobuf", "opencv-python-headless"})


def plan(*entries: str, pip: tuple[str, ...] = (), channels: tuple[str, ...] = ()) -> Plan:
    lines = ["channels:", *(f"- {channel}" for channel in channels)] if channels else []
    lines += ["dependencies:", *(f"- {entry}" for entry in entries)]
    lines += ["- pip:", *(f"  - {entry}" for entry in pip)] if pip else []
    return translated(parse_conda_file("\n".join(lines), "env.yml"), IN_IMAGE)


@pytest.mark.parametrize("entry", ["tensorflow-gpu=1.12", "tensorflow=2.3", "tensorflow_gpu", "keras=2.2"])
def test_tensorflow_is_the_images_and_told(entry):
    made = plan(entry)
    assert made.requirements == ()
    assert made.needs == {"tensorflow"}
    assert made.told[0].line == 2
    assert "TensorFlow" in made.told[0].why


@pytest.mark.parametrize(
    "entry", ["azureml-core", "azureml-defaults==1.0.43.*", "azureml-contrib-services", "azureml-mlflow"]
)
def test_azureml_is_provided_or_left_out_and_told(entry):
    made = plan(pip=(entry,))
    assert (made.requirements, made.needs) == ((), frozenset())
    assert made.told[0].text == entry
    assert "azureml" in made.told[0].why


def test_the_interpreter_is_the_images():
    assert plan("python=3.6.2").requirements == ()
    assert "3.11" in plan("python=3.6.2").told[0].why


def test_what_the_server_is_made_of_keeps_its_version():
    assert plan("numpy").told == ()
    pinned = plan("numpy=1.16", "opencv=3.4")
    assert pinned.requirements == ()
    assert [told.text for told in pinned.told] == ["numpy=1.16", "opencv=3.4"]


def test_everything_else_goes_on_as_it_stands():
    made = plan("ujson", "scikit-learn=0.24", pip=("requests>=2,<3", "pkg[extra]==1.0"))
    assert made.requirements == ("ujson", "scikit-learn==0.24.*", "requests>=2,<3", "pkg[extra]==1.0")
    assert made.told == ()


def test_names_that_pypi_spells_otherwise_are_translated_and_told():
    made = plan("pytorch=2.1", pip=("sklearn",))
    assert made.requirements == ("torch==2.1.*", "scikit-learn")
    assert [told.to for told in made.told] == ["torch==2.1.*", "scikit-learn"]


def test_a_package_that_is_there_twice_is_installed_once_as_pip_wants_it():
    made = plan("ujson=1.35", pip=("ujson==5.10",))
    assert made.requirements == ("ujson==5.10",)
    assert "takes the place of ujson==1.35.*" in made.told[0].why


def test_addresses_are_told():
    made = plan(pip=('"pkg @ git+https://example.org/pkg"',))
    assert made.requirements == ("pkg @ git+https://example.org/pkg",)
    assert "address" in made.told[0].why


def test_no_address_takes_the_place_of_another():
    addresses = ("git+https://example.org/a", "git+https://example.org/b", "https://example.org/c.whl")
    made = plan(pip=addresses)
    assert made.requirements == addresses
    assert all("address" in told.why for told in made.told)
    assert len(made.told) == 3


def test_an_address_with_a_password_in_it_is_told_to_be_one():
    told = plan(
        pip=("git+https://me:word@example.org/a", "git+ssh://git@example.org/b", "git+https://example.org/c@v1")
    )
    assert ["before the @" in one.why for one in told.told] == [True, False, False]


def test_one_package_for_several_pythons_is_kept_for_each():
    entries = ("ujson==1.35; python_version < '3.8'", "ujson>=5; python_version >= '3.8'")
    assert plan(pip=tuple(f'"{entry}"' for entry in entries)).requirements == entries


def test_unknown_channels_are_told_and_known_ones_are_not():
    made = plan("ujson", channels=("defaults", "conda-forge", "https://conda.anaconda.org/conda-forge", "my-lab"))
    assert len(made.warnings) == 1
    assert "my-lab" in made.warnings[0]
    assert "line 5" in made.warnings[0]


def test_the_packages_of_the_image_are_read_from_what_is_installed():
    found = packages_in_image()
    assert {"accelserve", "numpy", "protobuf", "fastapi", "starlette", "onnxruntime", "typing-extensions"} <= found
    assert not {"pytest", "openvino", "tensorflow-cpu"} & found


def test_an_extra_is_made_of_what_the_project_says():
    assert [re.match("[a-z-]+", line)[0] for line in requirements_of_extra("tensorflow")] == ["tensorflow-cpu"]


def test_the_page_has_every_rule():
    page = PAGE.read_text()
    missing = [name for name in RULES if f"`{name}`" not in page]
    assert missing == []

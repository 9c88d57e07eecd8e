"""Conda files, as the original's documents and their readers write them."""

from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from accelserve.config_sources import ConfigError
from accelserve.packaging.conda_file import CondaFile, parse_conda_file, read_conda_file

INDENTED = """\
name: service
channels:
  - defaults
dependencies:
  - tensorflow-gpu = 1.12
  - numpy
  - pip:
    - azureml-core
    - azureml-contrib-services
"""
FLUSH = """\
name: project_environment
dependencies:
  # the interpreter
- python=3.6.2

- pip:
  - azureml-defaults==1.0.43.*
- numpy
channels:
- conda-forge
"""


def read(text: str) -> CondaFile:
    return parse_conda_file(text, "myenv.yml")


def told(text: str) -> list[tuple[str, str, int, bool]]:
    return [(one.name, one.version, one.line, one.of_pip) for one in read(text).wanted]


def problems(text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        read(text)
    return "\n".join(refused.value.problems)


def test_both_styles_of_lists_are_read_with_their_lines():
    assert told(INDENTED) == [
        ("tensorflow-gpu", "==1.12.*", 5, False),
        ("numpy", "", 6, False),
        ("azureml-core", "", 8, True),
        ("azureml-contrib-services", "", 9, True),
    ]
    assert told(FLUSH) == [
        ("python", "==3.6.2.*", 4, False),
        ("azureml-defaults", "==1.0.43.*", 7, True),
        ("numpy", "", 8, False),
    ]
    assert read(INDENTED).channels == ((3, "defaults"),)
    assert read(FLUSH).channels == ((10, "conda-forge"),)


@pytest.mark.parametrize(
    ("entry", "version"),
    [
        ("x", ""),
        ("x *", ""),
        ("x=1.12", "==1.12.*"),
        ("x = 1.12", "==1.12.*"),
        ("x=1.12.*", "==1.12.*"),
        ("x==1.12.0", "==1.12.0"),
        ("x == 1.12.0", "==1.12.0"),
        ("x>=1.2, <2", ">=1.2,<2"),
        ("x 1.12", "==1.12.*"),
        ("x~=1.4", "~=1.4"),
        ("x!=1.4", "!=1.4"),
        ("x!=1.4.*", "!=1.4.*"),
        ("x=1.12*", "==1.12.*"),
        ("x==1.12*", "==1.12.*"),
        ("x>=1.16.*,<2.0*", ">=1.16,<2.0"),
        ("x=1.0rc1", "==1.0rc1"),
        ("x=2019c", "==2019c"),
        ("x=1.0.post1", "==1.0.post1"),
    ],
)
def test_condas_versions_become_pips(entry, version):
    assert told(f"dependencies:\n- {entry}\n")[0][:2] == ("x", version)


@pytest.mark.parametrize("version", ["", "1.12", "1.12.*", "1.12*", "1.0rc1", "2019.3"])
@pytest.mark.parametrize("sign", ["=", "==", ">=", "<", "!=", " "])
def test_pip_can_read_every_version_that_is_made(sign, version):
    if not version and sign != "=":
        return
    _, made, _, _ = told(f"dependencies:\n- x{sign if version else ''}{version}\n")[0]
    SpecifierSet(made)


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("git+https://example.org/a/pkg.git@v1", ""),
        ("https://example.org/pkg-1.0-py3-none-any.whl", ""),
        ("git+ssh://git@example.org/pkg#egg=My_Pkg", "my-pkg"),
        ("git+https://example.org/pkg#subdirectory=py&egg=pkg", "pkg"),
    ],
)
def test_addresses_have_the_name_that_they_say(entry, name):
    (found,) = read(f"dependencies:\n- pip:\n  - {entry}\n").wanted
    assert (found.name, found.rest) == (name, entry)


@pytest.mark.parametrize(
    "entry", ["./pkg", "wheels/pkg", "pkg-1.0-py3-none-any.whl", "pkg.tar.gz", "/tmp/pkg", "../pkg"]
)
def test_files_of_this_machine_are_refused(entry):
    assert "no file of yours" in problems(f"dependencies:\n- pip:\n  - {entry}\n")


@pytest.mark.parametrize("entry", ["x=1.12=py36_0", "x==1.12=py36_0", "x 1.12 py36_0"])
def test_builds_are_left_out_and_told(entry):
    found = read(f"dependencies:\n- {entry}\n")
    assert found.wanted[0].version.startswith("==1.12")
    assert "py36_0" in found.remarks[0][1]


def test_a_channel_before_a_name_is_left_out_and_told():
    found = read("dependencies:\n- conda-forge::zebra=1.2\n")
    assert found.wanted[0].name == "zebra"
    assert "conda-forge" in found.remarks[0][1]


def test_names_are_compared_as_pip_compares_them():
    assert told("dependencies:\n- Scikit_Learn\n")[0][0] == "scikit-learn"


@pytest.mark.parametrize(
    "entry",
    ["pkg[gpu]==1.0", "pkg; python_version < '3.12'", "pkg @ https://example.org/pkg.whl"],
)
def test_pips_entries_with_more_than_a_version_are_kept_whole(entry):
    text = f'dependencies:\n- pip:\n  - "{entry}"\n'
    assert read(text).wanted[0].rest == entry


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "conda writes them"),
        ("just words", 1, "conda writes them"),
        ("- a\n- b\n", 1, "conda writes them"),
        ("name: x\n", 1, "no dependencies"),
        ("dependencies: numpy\n", 1, "want a list"),
        ("dependencies:\n- numpy\n- [a, b]\n", 3, "a list in the list"),
        ("dependencies:\n- numpy\n-\n", 3, "nothing"),
        ("dependencies:\n- npm:\n  - left-pad\n", 2, "only `pip:`"),
        ("dependencies:\n- pip:\n  - -r other.txt\n", 3, "write the packages themselves"),
        ("dependencies:\n- pip:\n  - --index-url https://example.org\n", 3, "option"),
        ("dependencies:\n- pip:\n  - pkg==1 --hash=sha256:00\n", 3, "option"),
        ("dependencies:\n- pip:\n  - '!!'\n", 3, "want `name==version`"),
        ("dependencies:\n- pip:\n  - |\n    pkg\n    --index-url https://example.org\n", 3, "several lines"),
        ("dependencies:\n- '=1.0'\n", 2, "want `name`"),
        ("dependencies:\n- x=1|2\n", 2, "pip can read"),
        ("dependencies:\n- x[version='>=1']\n", 2, "pip can read"),
        ("dependencies:\n- a\ndependencies:\n- b\n", 3, "twice"),
        ("dependancies:\n- a\n", 1, "unknown key 'dependancies'"),
        ("dependencies:\n- a\n  b: c\n d\n", 3, "not YAML"),
        ("dependencies:\n\t- a\n", 2, "not YAML"),
        ("dependencies: [a, b\n", 2, "not YAML"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line_and_a_remedy(text, line, words):
    said = problems(text)
    assert f"myenv.yml, line {line}: " in said
    assert words in said


@pytest.mark.parametrize("end", [r"\n", r"\r", r"\f", r"\v", r"\x1c", r"\x85", r"\u2028", r"\u2029"])
@pytest.mark.parametrize("place", ["- pip:\n  - ", "- "])
def test_no_entry_makes_a_second_line_of_requirements(place, end):
    assert "several lines" in problems(f'dependencies:\n{place}"pkg{end}--index-url=http://example.org"\n')


def test_characters_that_nobody_sees_are_refused():
    assert r"nobody sees, 'pkg\u202e==1'" in problems('dependencies:\n- pip:\n  - "pkg\\u202e==1"\n')


def test_all_problems_are_told_at_once():
    assert len(problems("nome: x\ndependencies:\n- x=1|2\n- pip:\n  - -e .\n").splitlines()) == 3


def test_a_yaml_bomb_is_refused_before_it_grows():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "alias" in problems("\n".join([*lines, "dependencies: *a11"]))


def test_deep_nesting_is_refused():
    assert "nested too deeply" in problems("dependencies: " + "[" * 10_000)


def test_tags_make_nothing():
    said = problems("dependencies:\n- !!python/object/apply:os.system ['touch /tmp/x']\n")
    assert "a list in the list" in said


def test_a_huge_file_is_refused_unread(tmp_path):
    (tmp_path / "huge.yml").write_text("#" * 2**21)
    with pytest.raises(ConfigError, match="no environment file"):
        read_conda_file(tmp_path / "huge.yml")
    with pytest.raises(ConfigError, match="not a regular file"):
        read_conda_file(Path("/dev/zero"))


def test_numbers_and_dates_are_words_here():
    assert told("dependencies:\n- pip:\n  - 7zip==2020.1\n")[0][:2] == ("7zip", "==2020.1")


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_conda_file(tmp_path / "none.yml")
    (tmp_path / "bad.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_conda_file(tmp_path / "bad.yml")
    (tmp_path / "bell.yml").write_bytes(b"name: \x07")
    with pytest.raises(ConfigError, match="not YAML"):
        read_conda_file(tmp_path / "bell.yml")


def test_a_byte_order_mark_and_windows_line_ends_are_no_obstacle(tmp_path):
    (tmp_path / "env.yml").write_bytes(b"\xef\xbb\xbfdependencies:\r\n- numpy=1.16\r\n")
    assert read_conda_file(tmp_path / "env.yml").wanted[0].name == "numpy"

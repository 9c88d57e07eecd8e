"""Flags > environment > file > defaults, and every mistake told at once."""

from pathlib import Path

import pytest

from accelserve.config import OPTIONS, ModelConfig, ServerConfig, parse_bytes
from accelserve.config_sources import ConfigError, load_config

MODEL = ["m=/models/m.onnx"]


def load(flags=None, models=MODEL, environ=None, file=None):
    return load_config(flags or {}, list(models), environ or {}, file)


def problems(*args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        load(*args, **kwargs)
    return caught.value.problems


def test_every_option_is_a_field_and_every_field_an_option():
    fields = set(ServerConfig.__dataclass_fields__) - {"models"}
    assert {option.name for option in OPTIONS} == fields


def test_defaults_are_the_contracts():
    config = load().config
    assert (config.host, config.http_port, config.grpc_port) == ("127.0.0.1", 8501, 8500)
    assert (config.device, config.grace_period_s, config.drain_timeout_s) == ("auto", 5.0, 30.0)
    assert config.max_body_bytes == 64 * 2**20
    assert config.models == (ModelConfig("m", Path("/models/m.onnx")),)


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path):
    file = tmp_path / "server.toml"
    file.write_text("http_port = 1\ngrpc_port = 2\nhost = '0.0.0.0'\n")
    config = load(
        {"http_port": "3"}, environ={"ACCELSERVE_HTTP_PORT": "4", "ACCELSERVE_GRPC_PORT": "5"}, file=file
    ).config
    assert (config.http_port, config.grpc_port, config.host) == (3, 5, "0.0.0.0")


def test_models_come_from_the_file_relative_to_it(tmp_path):
    file = tmp_path / "server.toml"
    file.write_text('[models.a]\npath = "sub/a.onnx"\ndevice = "cpu"\nthreads = 2\n')
    assert load(models=[], file=file).config.models == (ModelConfig("a", tmp_path / "sub/a.onnx", "cpu", 2),)


def test_tf_servings_environment_names_the_model_when_nothing_else_does():
    config = load(models=[], environ={"MODEL_NAME": "resnet"}).config
    assert config.models == (ModelConfig("resnet", Path("/models/resnet")),)
    config = load(models=[], environ={"MODEL_BASE_PATH": "/srv"}).config
    assert config.models == (ModelConfig("model", Path("/srv/model")),)


def test_all_mistakes_are_reported_together(tmp_path):
    file = tmp_path / "server.toml"
    file.write_text("colour = 1\n[models.a]\npth = 'x'\n")
    found = problems({"http_port": "many", "grace_period_s": "-1"}, models=["=x"], file=file)
    text = "\n".join(found)
    for part in ("colour", "[models.a]", "--http-port", "--grace-period", "--model"):
        assert part in text, part


def test_an_unknown_environment_name_is_a_warning_but_kubernetes_own_are_not():
    loaded = load(environ={"ACCELSERVE_PROT": "1", "ACCELSERVE_SERVICE_HOST": "x", "ACCELSERVE_PORT_8501_TCP": "y"})
    assert loaded.warnings == ("unknown environment variable ACCELSERVE_PROT is ignored",)


def test_no_model_is_a_mistake_that_teaches():
    assert "--model NAME=PATH" in problems(models=[])[0]


def test_one_name_twice_is_refused():
    assert "twice" in problems(models=["m=a.onnx", "m=b.onnx"])[0]


def test_a_default_model_must_be_served():
    assert "not among the models" in problems({"default_model": "x"})[0]


def test_two_ports_must_differ_unless_both_are_free_ones():
    assert "must differ" in problems({"http_port": "9000", "grpc_port": "9000"})[0]
    assert load({"http_port": "0", "grpc_port": "0"}).config.http_port == 0


@pytest.mark.parametrize(
    ("text", "number"), [("64MiB", 2**26), ("64M", 2**26), ("10", 10), ("1 kb", 1024), ("2GiB", 2**31)]
)
def test_sizes_are_read_in_powers_of_1024(text, number):
    assert parse_bytes(text) == number


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5M", "lots", "1TB"])
def test_sizes_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match="want"):
        parse_bytes(text)


def test_a_missing_config_file_is_named(tmp_path):
    assert "nowhere.toml" in problems(file=tmp_path / "nowhere.toml")[0]

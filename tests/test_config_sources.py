"""Flags > environment > file > defaults, and every mistake told at once."""

from pathlib import Path

import pytest

from accelserve.config import ModelConfig, ServerConfig, VersionPolicy
from accelserve.config_options import OPTIONS
from accelserve.config_sources import ConfigError, load_config

MODEL = ["m=/models/m.onnx"]


def load(flags=None, models=MODEL, environ=None, file=None):
    return load_config(flags or {}, list(models), environ or {}, file)


def problems(*args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        load(*args, **kwargs)
    return caught.value.problems


def test_defaults_are_the_contracts():
    config = load().config
    assert (config.host, config.http_port, config.grpc_port) == ("127.0.0.1", 8501, 8500)
    assert (config.device, config.grace_period_s, config.drain_timeout_s) == ("auto", 5.0, 30.0)
    assert config.max_body_bytes == 64 * 2**20
    assert config.models == (ModelConfig("m", Path("/models/m.onnx")),)


@pytest.mark.parametrize(("scoring_s", "drain_s"), [("20", 30.0), ("60", 62.0), ("90.5", 93.0)])
def test_a_run_that_has_just_begun_ends_within_the_drain_timeout(scoring_s, drain_s):
    script = {"entry_script": "score.py", "scoring_timeout_s": scoring_s}
    assert load(script).config.drain_timeout_s == drain_s
    assert load({**script, "drain_timeout_s": "7"}).config.drain_timeout_s == 7.0
    assert load(script, environ={"ACCELSERVE_DRAIN_TIMEOUT": "8"}).config.drain_timeout_s == 8.0


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


def test_empty_names_of_tf_serving_count_as_not_set():
    """An image that is built on ours says so that it serves something else."""
    with pytest.raises(ConfigError, match="no model given"):
        load(models=[], environ={"MODEL_NAME": "", "MODEL_BASE_PATH": ""})


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


def test_a_missing_config_file_is_named(tmp_path):
    assert "nowhere.toml" in problems(file=tmp_path / "nowhere.toml")[0]


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "9" * 5000, "1e999", f"-{'9' * 400}", f"{'9' * 400}.0"])
@pytest.mark.parametrize("option", [o for o in OPTIONS if not isinstance(getattr(ServerConfig(), o.name), str | tuple)])
def test_numbers_without_an_end_are_refused_by_every_option_in_few_words(option, text):
    (found,) = problems({option.name: text})
    assert found.startswith(f"{option.flag}: ")
    assert "want " in found
    assert len(found) < 250


# --- the file


def written(tmp_path, text):
    (tmp_path / "server.toml").write_text(text)
    return tmp_path / "server.toml"


MODEL_TABLE = '[models.m]\npath = "m.onnx"\n'


@pytest.mark.parametrize("line", ["threads = true", "threads = 0", "threads = 1.5", "device = 5", 'device = "gpuu"'])
def test_a_models_table_takes_what_the_options_of_these_names_take(tmp_path, line):
    (found,) = problems(models=[], file=written(tmp_path, f"{MODEL_TABLE}{line}\n"))
    assert found.startswith(f"{tmp_path / 'server.toml'}: [models.m] {line.partition(' ')[0]}: ")
    assert "want " in found


@pytest.mark.parametrize(
    "text",
    [
        "models = 5\n",
        "models = []\n",
        "[[models]]\npath = 'm.onnx'\n",
        "models.m = 'm.onnx'\n",
        "[models.m]\npath = 5\n",
    ],
)
def test_models_that_are_no_tables_with_a_path_are_one_mistake(tmp_path, text):
    (found,) = problems(models=[], file=written(tmp_path, text))
    assert "path = " in found


@pytest.mark.parametrize(
    "line", ["host = 5", "host = true", "default_model = 1979-05-27", "host = ['::1']", "device = {gpu = 0}"]
)
def test_a_value_of_another_kind_than_its_option_is_refused(tmp_path, line):
    (found,) = problems(file=written(tmp_path, line))
    assert "want " in found


def test_numbers_flags_and_words_of_the_file_are_taken_as_toml_or_as_text(tmp_path):
    file = written(
        tmp_path, 'strict = true\nthreads = "2"\ngrace_period = 1\nmax_body_bytes = "1MiB"\nkeep_alive = 0.5\n'
    )
    config = load(file=file).config
    assert (config.strict, config.threads, config.grace_period_s) == (True, 2, 1.0)
    assert (config.max_body_bytes, config.keep_alive_s) == (2**20, 0.5)


@pytest.mark.parametrize(
    "content", [b"threads = " + b"9" * 5000, b"host = \xff", b"host = ", b"threads = 1\nthreads = 2\n"]
)
def test_a_file_that_is_no_toml_is_one_mistake_that_names_it(tmp_path, content):
    (tmp_path / "server.toml").write_bytes(content)
    (found,) = problems(models=[], file=tmp_path / "server.toml")
    assert "server.toml" in found


def test_a_missing_file_is_the_only_mistake_whatever_it_might_have_said(tmp_path):
    assert len(problems({"default_model": "m"}, models=[], file=tmp_path / "nowhere.toml")) == 1
    (found,) = problems(models=[], environ={"ACCELSERVE_CONFIG": str(tmp_path / "nowhere.toml")})
    assert found.startswith("ACCELSERVE_CONFIG ")


def test_the_environment_may_name_the_file_and_a_flag_another(tmp_path):
    environ = {"ACCELSERVE_CONFIG": str(written(tmp_path, "http_port = 9000\n"))}
    assert load(environ=environ).config.http_port == 9000
    other = tmp_path / "other.toml"
    other.write_text("http_port = 9001\n")
    assert load(environ=environ, file=other).config.http_port == 9001


# --- the models


@pytest.mark.parametrize("text", ["m", "m=", "=m.onnx", "-m=m.onnx", "a b=m.onnx", "m=~nobody-of-this-name/m.onnx"])
def test_a_model_that_is_not_name_and_path_is_the_only_mistake(text):
    (found,) = problems(models=[text])
    assert found.startswith("--model: ")


def test_a_path_may_hold_an_equals_sign_and_start_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert load(models=["m=~/a=b.onnx"]).config.models == (ModelConfig("m", Path("/home/me/a=b.onnx")),)


def test_a_path_with_a_zero_byte_is_refused(tmp_path):
    (found,) = problems(models=[], file=written(tmp_path, '[models.m]\npath = "a\\u0000b"\n'))
    assert "[models.m]" in found


def test_the_environment_may_name_several_models():
    config = load(models=[], environ={"ACCELSERVE_MODEL": "a=a.onnx  b=b.onnx", "MODEL_NAME": "c"}).config
    assert [model.name for model in config.models] == ["a", "b"]


def test_the_models_of_a_flag_beat_those_of_the_environment_which_beat_those_of_the_file(tmp_path):
    file = written(tmp_path, '[models.file]\npath = "f.onnx"\n')
    environ = {"ACCELSERVE_MODEL": "environ=e.onnx", "MODEL_NAME": "tfs"}

    def names(**sources):
        return [model.name for model in load(**sources).config.models]

    assert names(models=["flag=f.onnx"], environ=environ, file=file) == ["flag"]
    assert names(models=[], environ=environ, file=file) == ["environ"]
    assert names(models=[], environ={"MODEL_NAME": "tfs"}, file=file) == ["file"]


def test_a_wrong_model_does_not_also_count_as_an_unknown_default_model(tmp_path):
    file = written(tmp_path, '[models.m]\npth = "m.onnx"\n')
    assert len(problems({"default_model": "m"}, models=[], file=file)) == 1
    assert len(problems({"default_model": "m"}, models=["m="])) == 1


def test_a_port_that_is_wrong_is_not_also_said_to_equal_the_other():
    assert len(problems({"http_port": "many", "grpc_port": "8501"})) == 1


def test_names_that_are_no_options_but_are_read_are_not_told_as_unknown():
    assert load(environ={"ACCELSERVE_MODEL": "a=b", "ACCELSERVE_CONFIG": ""}).warnings == ()


def test_the_address_that_kubernetes_gives_a_service_called_accelserve_http_is_no_port():
    loaded = load(environ={"ACCELSERVE_HTTP_PORT": "tcp://10.0.0.1:80", "ACCELSERVE_GRPC_PORT": "9000"})
    assert (loaded.config.http_port, loaded.config.grpc_port) == (8501, 9000)


# --- the store, versions, instances


def test_a_store_is_enough_to_serve():
    config = load({"store": "/srv/store"}, models=[]).config
    assert (config.store, config.models, config.poll_interval_s) == ("/srv/store", (), 2.0)
    assert load(models=[], environ={"ACCELSERVE_STORE": "/srv/store"}).config.store == "/srv/store"
    assert load({"store": "/s"}, models=[], environ={"MODEL_NAME": "resnet"}).config.models == ()
    assert load(environ={"ACCELSERVE_STORE": ""}).config.store == ""


@pytest.mark.parametrize(
    ("flags", "models", "environ", "store"),
    [
        ({}, ["m=m.onnx"], {"ACCELSERVE_STORE": "/s"}, ""),
        ({}, ["m=m.onnx", "n"], {"ACCELSERVE_STORE": "/s"}, "/s"),
        ({"store": "/s"}, ["m=m.onnx"], {}, "/s"),
        ({}, [], {"ACCELSERVE_MODEL": "m=m.onnx", "ACCELSERVE_STORE": "/s"}, "/s"),
        ({"store": "/s"}, [], {"ACCELSERVE_MODEL": "m=m.onnx"}, "/s"),
        ({}, [], {"ACCELSERVE_MODEL": "m=m.onnx"}, ""),
        ({}, [], {}, "/file"),
    ],
)
def test_models_of_a_source_that_wins_replace_the_store_of_another_too(tmp_path, flags, models, environ, store):
    file = written(tmp_path, 'store = "/file"\n')
    assert load(flags, models=models, environ=environ, file=file).config.store == store


def test_a_store_in_the_file_is_meant_from_where_the_file_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert load(models=[], file=written(tmp_path, 'store = "models"\n')).config.store == str(tmp_path / "models")
    assert load(models=[], file=written(tmp_path, 'store = "~/models"\n')).config.store == "/home/me/models"
    assert load({"store": "~/models"}, models=[]).config.store == "/home/me/models"
    beaten = load({"store": "flag"}, models=[], file=written(tmp_path, 'store = "models"\n'))
    assert beaten.config.store == "flag"


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("m", ModelConfig("m", None)),
        ("m:3", ModelConfig("m", None, versions=VersionPolicy(specific=(3,)))),
        ("m=m.onnx", ModelConfig("m", Path("m.onnx"))),
    ],
)
def test_with_a_store_a_model_is_a_name_a_name_and_version_or_a_path(text, model):
    assert load({"store": "/s"}, models=[text]).config.models == (model,)


@pytest.mark.parametrize("text", ["m=", "=m", "m:", "m:x", "m:1:2", "m:-1", "-m", "m:1=x", f"m:{'9' * 19}"])
def test_what_is_none_of_these_is_the_only_mistake(text):
    (found,) = problems({"store": "/s"}, models=[text])
    assert found.startswith("--model: ")


def test_a_name_without_a_store_says_what_is_missing(tmp_path):
    (found,) = problems(models=["m"])
    assert "NAME=PATH" in found
    assert "--store DIR" in found
    (found,) = problems(models=[], file=written(tmp_path, "[models.m]\ninstances = 2\n"))
    assert found == '[models.m]: want path = "...", or --store DIR that it is in'


def test_a_store_that_was_meant_and_is_wrong_is_told_once(tmp_path):
    (found,) = problems(models=["m"], file=written(tmp_path, "store = 5\n"))
    assert "store" in found


def test_the_default_model_may_be_any_of_the_store_and_none_that_is_not_served():
    assert load({"store": "/s", "default_model": "later"}, models=["p=p.onnx"]).config.default_model == "later"
    assert "not among the models" in problems({"store": "/s", "default_model": "x"}, models=["m"])[0]


@pytest.mark.parametrize(
    ("value", "policy"),
    [
        ('"latest"', VersionPolicy()),
        ('"latest:3"', VersionPolicy(latest=3)),
        ('"all"', VersionPolicy(latest=0)),
        ("[3, 1, 3]", VersionPolicy(specific=(1, 3))),
        ('"7"', VersionPolicy(specific=(7,))),
    ],
)
def test_the_file_chooses_a_models_versions(tmp_path, value, policy):
    (model,) = load(models=[], file=written(tmp_path, f"{MODEL_TABLE}versions = {value}\n")).config.models
    assert model.versions == policy


@pytest.mark.parametrize(
    "value", ["[]", "3", '"newest"', '"latest:0"', '"latest:"', "[-1]", "[true]", '["1"]', "{ latest = 2 }", '"all:2"']
)
def test_a_choice_of_versions_that_is_none_is_one_mistake(tmp_path, value):
    (found,) = problems(models=[], file=written(tmp_path, f"{MODEL_TABLE}versions = {value}\n"))
    assert '"latest", "latest:N", "all" or a list' in found
    assert "[models.m] versions: " in found


def test_a_choice_of_versions_that_is_wrong_is_told_as_it_was_written(tmp_path):
    (found,) = problems(models=[], file=written(tmp_path, f'{MODEL_TABLE}versions = "newest"\n'))
    assert "[models.m] versions: 'newest': want " in found


def test_an_empty_path_is_no_path_and_not_the_folder_of_the_file(tmp_path):
    (found,) = problems(models=[], file=written(tmp_path, '[models.m]\npath = ""\n'))
    assert found.endswith("[models.m]: '': want a path")


def test_instances_are_chosen_by_flag_and_by_the_models_table(tmp_path):
    config = load({"instances": "2"}, models=[], file=written(tmp_path, f"{MODEL_TABLE}instances = 4\n")).config
    assert (config.instances, config.models[0].instances) == (2, 4)


def test_plug_ins_are_allowed_by_flag_over_environment_over_file(tmp_path):
    file = tmp_path / "server.toml"
    file.write_text('[backends]\nallow = ["npu", "tiny"]\n')
    assert load(file=file).config.backends == ("npu", "tiny")
    environ = {"ACCELSERVE_BACKENDS": "other"}
    assert load(environ=environ, file=file).config.backends == ("other",)
    assert load({"backends": "npu, tiny,npu"}, environ=environ, file=file).config.backends == ("npu", "tiny")
    assert load(environ={"ACCELSERVE_BACKENDS": ""}, file=file).config.backends == ()
    assert load().config.backends == ()


@pytest.mark.parametrize(
    "text",
    ["backends = 'npu'\n", "[backends]\nallow = 'npu'\n", "[backends]\nallow = [1]", "[backends]\ndeny = []"],
)
def test_a_file_that_allows_plug_ins_in_another_way_is_told_the_right_one(tmp_path, text):
    file = tmp_path / "server.toml"
    file.write_text(text)
    assert problems(file=file) == [f'{file}: [backends]: want allow = ["NAME", ...] and nothing else']


def test_a_plug_ins_name_that_cannot_be_one_is_refused():
    assert problems({"backends": "npu,,tiny"}) == [
        "--backends: 'npu,,tiny': want names of installed plug-ins, such as npu,other"
    ]

"""What azmlinfsrv reads from flags, environment and config.json, and what it says of mistakes."""

import json
from pathlib import Path

import pytest

from accelserve.azmlinfsrv.config import AzmlConfig, AzmlConfigError, AzmlFlags, AzmlLoaded, load_azml_config
from accelserve.azmlinfsrv.runtime import worker_environ, worker_settings
from accelserve.config_sources import ConfigError


def load(folder: Path, environ: dict[str, str] | None = None, **flags: object) -> AzmlConfig:
    return loaded(folder, environ, **flags).config


def loaded(folder: Path, environ: dict[str, str] | None = None, **flags: object) -> AzmlLoaded:
    return load_azml_config(AzmlFlags(**{"entry_script": "score.py", **flags}), environ or {}, folder)


def problems(folder: Path, environ: dict[str, str] | None = None, **flags: object) -> list[str]:
    with pytest.raises(ConfigError) as wrong:
        loaded(folder, environ, **flags)
    return wrong.value.problems


def write(folder: Path, **content: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(content))
    return path


def test_the_defaults_are_the_originals_but_for_the_address(tmp_path):
    config = load(tmp_path)
    assert config.entry_script == (tmp_path / "score.py").resolve()
    assert (config.app_root, config.port, config.health_port, config.workers) == (tmp_path, 5001, None, 1)
    assert (config.service, config.service_version, config.path_prefix) == ("ML service", "1.0", "")
    assert config.timeout_ms == 300_000  # WORKER_TIMEOUT is less than SCORING_TIMEOUT_MS
    assert (config.server.host, config.cors_origins, config.log_level) == ("127.0.0.1", (), "info")
    assert load(tmp_path, strict=True).server.host == "0.0.0.0"


def test_a_run_that_has_just_begun_ends_within_the_drain_timeout(tmp_path):
    assert load(tmp_path).server.drain_timeout_s == 302.0
    assert load(tmp_path, {"SCORING_TIMEOUT_MS": "1000"}).server.drain_timeout_s == 30.0
    assert load(tmp_path, {"ACCELSERVE_DRAIN_TIMEOUT": "9"}).server.drain_timeout_s == 9.0
    assert load(tmp_path, own={"drain_timeout_s": "7"}).server.drain_timeout_s == 7.0


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path):
    write(tmp_path, AZUREML_MODEL_DIR="file", WORKER_COUNT=2, SERVICE_NAME="of the file")
    assert load(tmp_path).model_dir == str(tmp_path / "file")
    assert load(tmp_path).workers == 2
    environ = {"AZUREML_MODEL_DIR": "environ", "WORKER_COUNT": "3"}
    assert load(tmp_path, environ).model_dir == str(tmp_path / "environ")
    config = load(tmp_path, environ, model_dir="/flag", worker_count="4")
    assert (config.model_dir, config.workers, config.service) == ("/flag", 4, "of the file")


def test_config_json_is_looked_for_in_the_app_root_then_beside_the_script(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "code").mkdir()
    write(tmp_path / "code", SERVICE_NAME="beside")
    script = {"entry_script": str(tmp_path / "code" / "score.py")}
    environ = {"AML_APP_ROOT": str(tmp_path / "root")}
    assert load(tmp_path, environ, **script).service == "beside"
    (tmp_path / "root" / "config.json").touch()  # empty: none
    assert load(tmp_path, environ, **script).service == "beside"
    write(tmp_path / "root", SERVICE_NAME="of the root")
    assert load(tmp_path, environ, **script).service == "of the root"
    other = write(tmp_path, SERVICE_NAME="named")
    assert load(tmp_path, environ, config_file=str(other), **script).service == "named"
    assert load(tmp_path, {**environ, "AZUREML_CONFIG_FILE": str(other)}, **script).service == "named"


def test_without_a_flag_the_script_is_of_the_app_root(tmp_path):
    environ = {"AML_APP_ROOT": "/app", "AZUREML_ENTRY_SCRIPT": "code/score.py"}
    assert load(tmp_path, environ, entry_script=None).entry_script == Path("/app/code/score.py")
    named = write(tmp_path, SERVICE_NAME="no script in it")
    assert load(tmp_path, {}, entry_script=None, config_file=str(named)).entry_script == tmp_path / "main.py"


def test_nothing_to_serve_is_told(tmp_path):
    (problem,) = problems(tmp_path, entry_script=None)
    assert problem.startswith("Either provide an entry script with --entry_script")


def test_the_separate_health_endpoint_has_a_port_of_its_own(tmp_path):
    separate = {"SEPERATE_HEALTH_ENDPOINT": "true"}
    assert load(tmp_path, separate).health_port == 5000
    assert load(tmp_path, separate, health_port="5005").health_port == 5005
    assert load(tmp_path, {}, health_port="5005").health_port is None
    assert problems(tmp_path, separate, port="7000", health_port="7000") == [
        "--port and --health_port are both 7000; they must differ"
    ]


def test_the_ports_of_the_environment_are_overwritten_as_by_the_original(tmp_path):
    assert load(tmp_path, {"SERVER_PORT": "7001", "HEALTH_PORT": "7002"}).port == 5001


def test_all_mistakes_are_told_at_once(tmp_path):
    found = problems(
        tmp_path,
        {"SCORING_TIMEOUT_MS": "soon", "ACCELSERVE_MAX_BODY_BYTES": "much"},
        port="70000",
        worker_count="0",
        own={"host": " "},
    )
    assert [problem.partition(":")[0] for problem in found] == [
        "--host",
        "ACCELSERVE_MAX_BODY_BYTES",
        "--port",
        "--worker_count",
        "SCORING_TIMEOUT_MS",
    ]


@pytest.mark.parametrize(
    ("environ", "flags", "code"),
    [
        ({}, {"port": "70000"}, 1),
        ({}, {"entry_script": None}, 1),
        ({"SCORING_TIMEOUT_MS": "soon"}, {}, 3),
        ({"SCORING_TIMEOUT_MS": "soon"}, {"worker_count": "0"}, 1),
        ({"WORKER_COUNT": "many"}, {}, 3),
    ],
)
def test_the_original_ends_with_1_for_its_command_line_and_with_3_for_the_rest(tmp_path, environ, flags, code):
    with pytest.raises(AzmlConfigError) as wrong:
        load(tmp_path, environ, strict=True, **flags)
    assert wrong.value.exit_code == code


def test_the_original_passes_over_a_file_that_is_not_there(tmp_path):
    assert loaded(tmp_path, config_file="none.json", strict=True).warnings == (
        "--config_file none.json: no such file, or it is empty",
    )


def test_a_broken_or_missing_file_is_told(tmp_path):
    assert "no such file" in problems(tmp_path, config_file="none.json")[0]
    (tmp_path / "config.json").write_text("{")
    assert str(tmp_path / "config.json") in problems(tmp_path)[0]
    (tmp_path / "config.json").write_text("[1]")
    assert "want a JSON object" in problems(tmp_path)[0]


def test_what_has_no_effect_and_what_nobody_knows_is_warned_of(tmp_path):
    write(tmp_path, SERVICE_NAME="x", NO_SUCH_KEY=1)
    warnings = loaded(tmp_path, {"AML_APP_INSIGHTS_ENABLED": "true", "AML_APP_INSIGHTS_KEY": "a-secret"}).warnings
    assert len(warnings) == 2
    assert "unknown keys are ignored: NO_SUCH_KEY" in warnings[0]
    assert "AML_APP_INSIGHTS_ENABLED has no effect here" in warnings[1]
    assert "a-secret" not in "".join(warnings)


def test_what_of_the_originals_is_not_done_here_is_warned_of(tmp_path):
    (tmp_path / "logging.json").write_text("{}")
    environ = {"AML_MODEL_DC_STORAGE_ENABLED": "true", "AZUREML_DEBUG_PORT": "5678"}
    warnings = loaded(tmp_path, environ, insights=True).warnings
    assert [warning.partition(" ")[0] for warning in warnings] == [
        *("AML_MODEL_DC_STORAGE_ENABLED", "AZUREML_DEBUG_PORT", "--appinsights_instrumentation_key"),
        str(tmp_path / "logging.json"),
    ]
    assert loaded(tmp_path / "elsewhere").warnings == ()


def test_origins_time_limits_and_levels_are_read(tmp_path):
    environ = {"AML_CORS_ORIGINS": "a.example, https://b.example,", "SCORING_TIMEOUT_MS": "1500"}
    config = load(tmp_path, {**environ, "AZUREML_LOG_LEVEL": "WARN"})
    assert config.cors_origins == ("a.example", "https://b.example")
    assert (config.timeout_ms, config.log_level) == (1500, "warning")
    assert load(tmp_path, {"WORKER_TIMEOUT": "3"}).timeout_ms == 3000
    assert load(tmp_path, environ, access_control_allow_origins="*").cors_origins == ("*",)
    assert "AZUREML_LOG_LEVEL" in problems(tmp_path, {"AZUREML_LOG_LEVEL": "LOUD"})[0]


def test_our_own_settings_are_read_from_flags_and_environment(tmp_path):
    environ = {"ACCELSERVE_MAX_BODY_BYTES": "1MiB", "ACCELSERVE_GRACE_PERIOD": "7"}
    server = load(tmp_path, environ, own={"grace_period_s": "0", "max_queue_ms": "100"}).server
    assert (server.max_body_bytes, server.grace_period_s, server.max_queue_ms) == (2**20, 0.0, 100)


def test_workers_are_told_what_scripts_look_for(tmp_path):
    environ = {"SERVICE_VERSION": "2.1", "SERVICE_PATH_PREFIX": "/pre", "AZUREML_SOURCE_DIRECTORY": "src"}
    config = load(tmp_path, {**environ, "SERVICE_NAME": "mine"}, model_dir="models", strict=True)
    settings = worker_settings(config)
    assert (settings.service, settings.service_version, settings.path_prefix) == ("mine", "2.1", "/pre")
    assert (settings.model_dir, settings.app_root) == (str(tmp_path / "models"), str(tmp_path))
    assert settings.source_directory == str(tmp_path / "src")
    assert (settings.strict_compat, settings.nan) == (True, "NaN")
    assert worker_settings(load(tmp_path)).nan == "null"
    told = worker_environ(config)
    assert told["AML_APP_ROOT"] == str(tmp_path)
    assert told["AML_APP_INSIGHTS_ENABLED"] == "false"
    assert (told["SERVER_PORT"], told["HEALTH_PORT"], told["AZUREML_SOURCE_DIRECTORY"]) == ("5001", "5001", "src")

"""The modules of Azure ML: ours, and beside installed ones. Each in a process of its own, since `import` remembers."""

import subprocess
import sys
import textwrap

import pytest

BEGINNING = """
import sys
from accelserve.entry_script import stand_ins
from accelserve.entry_script.aml_response import AMLResponse
from accelserve.entry_script.model_paths import ModelPaths
sys.path.insert(0, sys.argv[1])
rawhttp = stand_ins.RawHttp()
stand_ins.install(rawhttp, AMLResponse, ModelPaths({"m": sys.argv[1]}, sys.argv[1], ""))
"""


def run(folder, script):
    """What the script prints, after the stand-ins are in."""
    command = [sys.executable, "-c", BEGINNING + textwrap.dedent(script), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_ways_to_import_them_work(tmp_path):
    run(
        tmp_path,
        """
        import azureml.contrib.services.aml_request
        import azureml.contrib.services.aml_response as response
        from azureml.contrib.services import aml_request
        from azureml.contrib.services.aml_request import AMLRequest, rawhttp as decorator
        from azureml_inference_server_http.api.aml_request import rawhttp as same
        from azureml_inference_server_http.api.aml_response import AMLResponse as same_response
        import azureml.core, azureml.core.model
        from azureml.core import Model
        from azureml.exceptions import ModelNotFoundException
        assert azureml.contrib.services.aml_request is aml_request
        assert decorator is same is rawhttp is aml_request.rawhttp
        assert response.AMLResponse is same_response is AMLResponse
        assert Model is azureml.core.model.Model
        assert azureml.core.model.ModelNotFoundException is ModelNotFoundException
        """,
    )


def test_the_decorator_leaves_the_function_and_remembers(tmp_path):
    run(
        tmp_path,
        """
        def function(request): pass
        assert not rawhttp.used
        assert rawhttp(function) is function
        assert rawhttp.used
        """,
    )


@pytest.mark.parametrize(
    "module", ["azureml.core.workspace", "azureml.train", "azureml.contrib.functions", "azureml.data"]
)
def test_what_there_is_no_stand_in_for_is_missing_by_its_own_name(tmp_path, module):
    run(
        tmp_path,
        f"""
        try:
            import {module}
        except ModuleNotFoundError as error:
            assert error.name == {module!r}, error
        else:
            raise AssertionError
        """,
    )


@pytest.fixture
def installed(tmp_path):
    """A folder with packages that look like azureml-core and azureml-contrib-services."""
    core, services = tmp_path / "azureml" / "core", tmp_path / "azureml" / "contrib" / "services"
    for package in (core, services):
        package.mkdir(parents=True)
    (tmp_path / "azureml" / "__init__.py").write_text("real = True\n")
    (core / "__init__.py").write_text("from azureml.core.model import Model\nWorkspace = 5\n")
    (core / "model.py").write_text(
        "class Model:\n    other = 7\n    @staticmethod\n"
        "    def get_model_path(model_name, version=None, _workspace=None):\n"
        "        return f'real {model_name} {version}'\n"
    )
    (services / "aml_request.py").write_text("raise RuntimeError('Flask is not here')\n")
    return tmp_path


def test_an_installed_azureml_stays_but_asks_us_for_models_first(installed):
    run(
        installed,
        """
        import azureml
        from azureml.core import Model, Workspace
        from azureml.contrib.services.aml_request import rawhttp as decorator
        assert azureml.real and Workspace == 5 and Model.other == 7
        assert decorator is rawhttp
        assert Model.get_model_path("m") == sys.argv[1]
        assert Model.get_model_path("elsewhere", 3) == "real elsewhere 3"
        """,
    )

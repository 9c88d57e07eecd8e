"""Starts azureml-inference-server-http (`azmlinfsrv`) on loopback; the entry script is azureml_entry.py.

The server binds every interface and has no option for it, so its constant is changed first.
"""

from azureml_inference_server_http import constants

constants.DEFAULT_HOST = "127.0.0.1"

from azureml_inference_server_http.amlserver import run  # noqa: E402  (copies the constant when imported)

if __name__ == "__main__":
    run()

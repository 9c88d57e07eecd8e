"""azureml-inference-server-http's command, environment and routes, around our workers and our HTTP server."""

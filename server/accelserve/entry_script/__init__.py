"""Azure ML's entry scripts, each in a process of its own: the server hands a request over, the worker runs the script.

The server imports `messages`, `heads`, `framing`, `check` and the pool. All else is for the worker, which alone runs
the user's code.
"""

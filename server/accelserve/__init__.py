"""accelserve: a model server for accelerators.

The package's map is `server/README.md`. Importing this package imports nothing heavy.
"""

__version__ = "0.1.0"

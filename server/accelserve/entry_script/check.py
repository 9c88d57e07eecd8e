"""What can be known of an entry script before anything runs it: all its problems at once.

The script is parsed and never imported. What only running would show (a star import, an assigned `run`, a decorator
that nobody knows) is left to the worker.
"""

import ast
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from accelserve.entry_script.rules import (
    BOTH_DECORATORS,
    HEADERS_PARAMETER,
    INIT_TAKES_NOTHING,
    NO_DATA_PARAMETER,
    ONLY_PLAIN_PARAMETERS,
    missing,
)

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_KNOWN_DECORATORS = {"rawhttp", "input_schema", "output_schema"}  # they leave the parameters as they are


def script_problems(script: Path) -> tuple[str, ...]:
    """Why a worker would refuse this script, in words; empty if nothing is known against it."""
    if script.suffix != ".py":
        return (f"{script}: an entry script's name ends in .py", *_reading_problems(script))
    return _reading_problems(script)


def _reading_problems(script: Path) -> tuple[str, ...]:
    try:
        with warnings.catch_warnings(action="ignore"):  # of old spellings; the worker shows them
            tree = ast.parse(script.read_bytes(), filename=str(script))
    except OSError as error:
        return (f"{script}: {error.strerror or error}",)
    except SyntaxError as error:
        return (f"{script}, line {error.lineno or 1}: {error.msg}",)
    except (ValueError, RecursionError, MemoryError) as error:  # zero bytes; nested beyond the parser
        return (f"{script} is not Python: {error}",)
    return tuple(f"{script}{problem}" for problem in _problems(tree))


def _problems(tree: ast.Module) -> Iterator[str]:
    statements = list(_top_level(tree.body))
    given = {name: statement for statement in statements for name in _names_given(statement)}  # the last one counts
    if not any(_gives_unknown_names(statement) for statement in statements):
        yield from (f": {missing(name)}" for name in ("init", "run") if name not in given)
    init, run = given.get("init"), given.get("run")
    if isinstance(init, _Function) and not init.decorator_list and _required(init.args):
        yield f", line {init.lineno}: {INIT_TAKES_NOTHING}"
    if isinstance(run, _Function):
        yield from (f", line {run.lineno}: {problem}" for problem in _run_problems(run, _real_names(statements)))


def _run_problems(run: _Function, real_names: Mapping[str, str]) -> Iterator[str]:
    decorators = {_decorator(node, real_names) for node in run.decorator_list}
    if {"rawhttp", "input_schema"} <= decorators:
        yield BOTH_DECORATORS
    if not decorators <= _KNOWN_DECORATORS:
        return
    arguments = run.args
    if arguments.posonlyargs or arguments.vararg or arguments.kwarg:
        yield ONLY_PLAIN_PARAMETERS
    elif not any(argument.arg != HEADERS_PARAMETER for argument in (*arguments.args, *arguments.kwonlyargs)):
        yield NO_DATA_PARAMETER


def _top_level(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """What runs when the module is imported, also within `if`, `try`, `with` and loops."""
    for statement in statements:
        yield statement
        for field in ("body", "orelse", "finalbody"):
            if not isinstance(statement, _Function | ast.ClassDef):
                yield from _top_level(getattr(statement, field, []))
        for handler in getattr(statement, "handlers", []):
            yield from _top_level(handler.body)
        for case in getattr(statement, "cases", []):
            yield from _top_level(case.body)


def _gives_unknown_names(statement: ast.stmt) -> bool:
    """A star import, and whatever writes into the module's own namespace."""
    if isinstance(statement, ast.ImportFrom):
        return any(alias.name == "*" for alias in statement.names)
    if isinstance(statement, _Function | ast.ClassDef):
        return False
    words = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
    return bool(words & {"globals", "exec", "setattr"})


def _names_given(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, _Function | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in statement.names)
    else:
        yield from (
            node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        )


def _real_names(statements: list[ast.stmt]) -> dict[str, str]:
    """What an imported name was called where it comes from."""
    imports = (node for node in statements if isinstance(node, ast.ImportFrom))
    return {alias.asname or alias.name: alias.name for node in imports for alias in node.names}


def _decorator(node: ast.expr, real_names: Mapping[str, str]) -> str:
    """`rawhttp` of `@rawhttp`, `@rawhttp()`, `@aml_request.rawhttp` and of an alias; "" for what has no name."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return real_names.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def _required(arguments: ast.arguments) -> bool:
    positional = [*arguments.posonlyargs, *arguments.args]
    return len(positional) > len(arguments.defaults) or any(default is None for default in arguments.kw_defaults)

"""What an entry script has to keep to, in words: said of its source, and again of what it turns out to be."""

HEADERS_PARAMETER = "request_headers"  # of run(): gets the request's headers as a dict

ONLY_PLAIN_PARAMETERS = "run() cannot accept positional-only arguments, *args, or **kwargs"
NO_DATA_PARAMETER = f'run() needs a parameter for the data, beside "{HEADERS_PARAMETER}"'
BOTH_DECORATORS = "run() cannot be decorated with both @rawhttp and @input_schema"
INIT_TAKES_NOTHING = "init() is called without arguments, and this one needs some"


def missing(name: str) -> str:
    return f"it has no {name}() at its top level"

"""Forms in a request's body, as scripts meet them: fields, and files that can be read like open ones."""

from email.parser import HeaderParser
from io import BytesIO
from pathlib import Path
from shutil import copyfileobj
from typing import IO, Any, NamedTuple
from urllib.parse import parse_qsl

from accelserve.entry_script.mappings import Headers, MultiDict

URL_ENCODED, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
FORM_TYPES = (URL_ENCODED, MULTIPART)


class FileStorage:
    """A file of a form: what it is called, and its bytes as a stream, whose methods it has."""

    def __init__(self, name: str, filename: str, headers: Headers, content: bytes) -> None:
        self.name = name
        self.filename = filename
        self.headers = headers
        self.stream = BytesIO(content)

    @property
    def content_type(self) -> str:
        return str(self.headers.get("content-type", ""))

    @property
    def mimetype(self) -> str:
        return self.content_type.partition(";")[0].strip().lower()

    def save(self, destination: str | Path | IO[bytes]) -> None:
        if hasattr(destination, "write"):
            copyfileobj(self.stream, destination)
            return
        with open(destination, "wb") as stream:
            copyfileobj(self.stream, stream)

    def __getattr__(self, name: str) -> Any:
        if name == "stream":  # not yet there
            raise AttributeError(name)
        return getattr(self.stream, name)

    def __iter__(self) -> Any:
        return iter(self.stream)


class Form(NamedTuple):
    fields: MultiDict
    files: MultiDict


def query_pairs(query: bytes) -> list[tuple[str, str]]:
    """Keys and values in order, empty ones too."""
    return parse_qsl(query.decode("utf-8", "replace"), keep_blank_values=True, errors="replace")


def read_form(body: bytes, content_type: str) -> Form:
    """Both parts empty if it is no form. Raises ScoringError(INVALID) for a broken one."""
    mimetype = content_type.partition(";")[0].strip().lower()
    if mimetype == URL_ENCODED:
        return Form(MultiDict(query_pairs(body)), MultiDict())
    if mimetype != MULTIPART:
        return Form(MultiDict(), MultiDict())
    fields, files = [], []
    for headers, content in _parts(body, content_type):
        name = headers.get_param("name", "", "content-disposition")
        filename = headers.get_filename()
        if filename is None:
            fields.append((str(name), content.decode("utf-8", "replace")))
        else:
            kept = Headers([(key, str(value)) for key, value in headers.items()])
            files.append((str(name), FileStorage(str(name), filename, kept, content)))
    return Form(MultiDict(fields), MultiDict(files))


def _parts(body: bytes, content_type: str) -> list[tuple[Any, bytes]]:
    from accelserve.codecs.bodies import form_parts  # numpy, which few scripts that get forms are without

    read = HeaderParser().parsestr  # names of files come in UTF-8 (RFC 7578 5.1)
    return [(read(headers.decode("utf-8", "replace")), content) for headers, content in form_parts(body, content_type)]

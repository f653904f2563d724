"""Where instances are sent: named in a small file, or said in one word."""

from __future__ import annotations

import re
import ssl
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from volseg.errors import UsageError

_AET = r"[^\\\s](?:[^\\\n\r]{0,14}[^\\\s])?"
_WORD = re.compile(rf"(?P<aet>{_AET})@(?P<host>[^@/\s]+):(?P<port>\d+)")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tls(_Section):
    """Files of the encryption, relative to the file of destinations; none of them: the system's authorities."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """What checks the other side's certificate, and shows ours where there is one.

        Raises
        ------
        UsageError
            A file that can't be read.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"a file of the destination's TLS can't be used: {error}") from error
        return context


class Dimse(_Section):
    """A node that takes C-STORE."""

    aet: Annotated[str, Field(pattern=rf"^{_AET}$")]
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    calling: Annotated[str, Field(pattern=rf"^{_AET}$")] = "VOLSEG"
    tls: Tls | None = None

    def __str__(self) -> str:
        return f"{self.aet}@{self.host}:{self.port}"


class Web(_Section):
    """A DICOMweb server that takes STOW-RS at ``<url>/studies``."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")]
    authorization: Annotated[str | None, Field(description="Value of the header of that name.", repr=False)] = None
    tls: Tls | None = None

    def __str__(self) -> str:
        return self.url.rstrip("/")


Destination = Dimse | Web
_FILE: TypeAdapter[dict[str, Destination]] = TypeAdapter(dict[str, Destination])


def destination(word: str, file: Path | None) -> Destination:
    """A destination by its name in a file, or as ``AET@host:port`` or a URL.

    Parameters
    ----------
    word
        Name or address of a destination.
    file
        TOML with a table a destination: ``aet``, ``host`` and ``port``, or ``url``.

    Raises
    ------
    UsageError
        Neither, or a file that isn't such.
    """
    if word.startswith(("http://", "https://")):
        return Web(url=word)
    if found := _WORD.fullmatch(word):
        return _checked({word: found.groupdict()}, word)[word]
    if file is None or not file.exists():
        where = "" if file is None else f", and there is no file {file}"
        raise UsageError(f"{word}: neither AET@host:port nor a URL{where}")
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{file}: no file of destinations: {error}") from error
    known = _checked(content, str(file))
    if word not in known:
        raise UsageError(f"{file} has no destination {word}; it has {', '.join(known) or 'none'}")
    return _with_paths(known[word], file.parent)


def _checked(content: object, where: str) -> dict[str, Destination]:
    try:
        return _FILE.validate_python(content)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise UsageError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _with_paths(found: Destination, folder: Path) -> Destination:
    if found.tls is None:
        return found
    files = {name: folder / path for name, path in found.tls if path is not None}
    return found.model_copy(update={"tls": Tls(**files)})

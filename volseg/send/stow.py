"""STOW-RS: an instance a request, streamed from its file."""

from __future__ import annotations

import http.client
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from volseg.send.answers import Answer, UnreachableError
from volseg.send.destination import Tls, Web
from volseg.send.instances import Instance

#: Seconds to wait for a connection and an answer.
TIMEOUT_S = 60.0
_CHUNK = 1 << 20
#: HTTP's statuses of a server that is busy or broken just now.
_LATER = {408, 425, 429, 500, 502, 503, 504}
#: Sequence of what failed, and the reason, in the answer's DICOM JSON.
_FAILED, _REASON = "00081198", "00081197"


class Server:
    """A DICOMweb server; a context manager.

    Parameters
    ----------
    destination
        The server.
    """

    def __init__(self, destination: Web) -> None:
        parts = urlsplit(destination.url)
        self._path = f"{parts.path.rstrip('/')}/studies"
        self._destination = destination
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "https":
            context = (destination.tls or Tls()).context()
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=TIMEOUT_S, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def send(self, instance: Instance) -> Answer:
        """Send an instance.

        Raises
        ------
        UnreachableError
            The connection is lost, or nothing was answered in time.
        """
        boundary = uuid.uuid4().hex
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(len(head) + instance.path.stat().st_size + len(tail)),
            "Accept": "application/dicom+json",
        }
        if self._destination.authorization is not None:
            headers["Authorization"] = self._destination.authorization
        try:
            self._connection.request("POST", self._path, _body(head, instance.path, tail), headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise UnreachableError(f"{self._destination}: {_why(error)}") from error
        return _judged(answer.status, content)


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _body(head: bytes, path: Path, tail: bytes) -> Iterator[bytes]:
    yield head
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
    yield tail


def _judged(status: int, content: bytes) -> Answer:
    """What an answer means: some servers say 200 and name what they did not store."""
    failed = _failure(content)
    if 200 <= status < 300 and failed is None:
        return Answer(accepted=True)
    said = f"HTTP {status}" if failed is None else f"HTTP {status}, failure reason {failed}"
    return Answer(accepted=False, said=said, later=status in _LATER)


def _failure(content: bytes) -> str | None:
    try:
        items = json.loads(content)[_FAILED]["Value"]
        return f"0x{int(items[0][_REASON]['Value'][0]):04X}" if items else None
    except (ValueError, KeyError, TypeError, IndexError):
        return None

"""A DICOM node on this machine, which takes what is sent to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pynetdicom import AE, evt

from volseg.send.destination import Dimse

#: pynetdicom forgets to close the socket of a connection that is refused.
UNCLOSED = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@contextmanager
def node(handle: Callable[[Any], int], **options: Any) -> Iterator[Dimse]:
    """A node that takes what is sent, on a free port of this machine."""
    ae = AE(ae_title="NODE")
    for option, value in options.items():
        setattr(ae, option, value)
    for kind in ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.481.3"):
        ae.add_supported_context(kind, ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"])
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, handle)])
    assert server is not None
    try:
        yield Dimse(aet="NODE", host="127.0.0.1", port=server.server_address[1])
    finally:
        server.shutdown()

"""C-STORE, by pynetdicom: files go over as they are, without being decoded."""

from __future__ import annotations

from collections.abc import Sequence

from pynetdicom import AE, _config
from pynetdicom.presentation import build_context

from volseg.send.answers import Answer, UnreachableError
from volseg.send.destination import Dimse
from volseg.send.instances import Instance

#: Seconds to wait for a connection, an association and an answer.
TIMEOUT_S = 60.0
#: Kinds of object and encoding that one association can agree on.
MOST_CONTEXTS = 128
#: Statuses of a node without room or time: later may be better (PS3.4 B.2.3).
_OUT_OF_RESOURCES = range(0xA700, 0xA800)
_WARNINGS = range(0xB000, 0xC000)


class Association:
    """An open association with a node; a context manager.

    Parameters
    ----------
    destination
        The node.
    instances
        Instances that are going to be sent: their kinds are agreed on.

    Raises
    ------
    UnreachableError
        There is no answer, or the node doesn't want to talk.
    """

    def __init__(self, destination: Dimse, instances: Sequence[Instance]) -> None:
        # Else the whole data set is decoded, and encoded again.
        _config.STORE_SEND_CHUNKED_DATASET = True
        node = AE(ae_title=destination.calling)
        node.connection_timeout = node.acse_timeout = node.dimse_timeout = node.network_timeout = TIMEOUT_S
        kinds = dict.fromkeys((each.sop_class_uid, each.transfer_syntax_uid) for each in instances)
        node.requested_contexts = [build_context(*kind) for kind in list(kinds)[:MOST_CONTEXTS]]
        tls = None if destination.tls is None else (destination.tls.context(), destination.host)
        self._association = node.associate(destination.host, destination.port, ae_title=destination.aet, tls_args=tls)
        if self._association.is_rejected:
            raise UnreachableError(f"{destination} rejects the association: is {destination.calling} known to it?")
        if self._association.rejected_contexts and not self._association.is_established:
            raise UnreachableError(f"{destination} takes none of these kinds of object", later=False)
        if not self._association.is_established:
            raise UnreachableError(f"{destination} doesn't answer")
        self._destination = destination

    def __enter__(self) -> Association:
        return self

    def __exit__(self, *_: object) -> None:
        if self._association.is_established:
            self._association.release()

    def send(self, instance: Instance) -> Answer:
        """Send an instance.

        Raises
        ------
        UnreachableError
            The connection is lost, or nothing was answered in time.
        """
        try:
            status = self._association.send_c_store(instance.path)
        except ValueError:
            return Answer(accepted=False, said="takes no such object in this encoding")
        except (OSError, RuntimeError) as error:
            raise UnreachableError(f"{self._destination}: the connection is lost") from error
        if "Status" not in status:
            raise UnreachableError(f"{self._destination}: the connection is lost, or nothing is answered")
        code = int(status.Status)
        if code == 0 or code in _WARNINGS:
            return Answer(accepted=True)
        comment = f": {status.ErrorComment}" if status.get("ErrorComment") else ""
        return Answer(accepted=False, said=f"status 0x{code:04X}{comment}", later=code in _OUT_OF_RESOURCES)

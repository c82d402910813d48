"""Whose a client id is: in a deployment a client is its SuperNode's key, whatever the SuperNode says of itself."""

import base64
import itertools
import re
from collections.abc import Mapping

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.hazmat.primitives.serialization.ssh import ssh_key_fingerprint

HIGHEST_ID = 99_999
_ID = re.compile(r"0|[1-9][0-9]{0,4}")


def is_client_id(text: str) -> bool:
    """Return whether a text is a client id: 0 to ``HIGHEST_ID``, without leading zeros."""
    return _ID.fullmatch(text) is not None


def fingerprint(public_key: bytes) -> str:
    """Return the fingerprint of a SuperNode's key, as ``ssh-keygen -l`` shows it.

    Args:
        public_key: The public key, in PEM. Flower checks each of the SuperNode's requests with it.

    Raises:
        ValueError: It is none.
    """
    try:
        digest = ssh_key_fingerprint(load_pem_public_key(public_key), hashes.SHA256())  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        raise ValueError(f"it has no key that can be read: {error}") from error
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


class Identities:
    """Client ids and the keys that own them: the first key with an id owns it until the run ends.

    Args:
        owners: Client id to the fingerprint of the key that owns it, from earlier sessions of the run.
    """

    def __init__(self, owners: Mapping[str, str]) -> None:
        self._owners = dict(owners)

    def claim(self, key: str, registered: str, said: str) -> str:
        """Return the id of the client with a key, which owns it from now on.

        Args:
            key: Fingerprint of the key.
            registered: Id with which the key was registered at the SuperLink; empty for none.
            said: Id that the SuperNode says it has; empty for none. Without either the client is numbered.

        Raises:
            ValueError: The ids differ, also from the one that the key has had in this run, or another key owns it.
        """
        owned = next((client_id for client_id, owner in self._owners.items() if owner == key), "")
        ids = {"is": owned, "is registered as": registered, "says it is": said}
        ids = {how: client_id for how, client_id in ids.items() if client_id}
        if len(set(ids.values())) > 1:
            words = " and ".join(f"{how} client {client_id}" for how, client_id in ids.items())
            raise ValueError(f"its key {key} {words}; a key has one id for a whole run")
        free = (str(number) for number in itertools.count() if str(number) not in self._owners)
        client_id = next(iter(ids.values())) if ids else next(free)
        owner = self._owners.setdefault(client_id, key)
        if owner != key:
            raise ValueError(
                f"it is not client {client_id}: that is key {owner}, its own is {key}; a client keeps its id by its "
                "key, --auth-supernode-private-key"
            )
        return client_id

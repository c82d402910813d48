"""A signature of a run's checksums, and so of all that decides its answers: Ed25519, in ``SHA256SUMS.sig``.

``openssl pkeyutl -verify -pubin -inkey KEY -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig`` says the same.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from tracefl.common.imports import check_installed
from tracefl.common.inside import is_there, read_bytes
from tracefl.common.text_files import write_atomically
from tracefl.errors import ConfigError, RecordError, one_line
from tracefl.records.checksums import CHECKSUMS

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE = f"{CHECKSUMS}.sig"

_MOST_BYTES = 1 << 26
_MOST_KEY_BYTES = 1 << 16
_HOW = "make one with: openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout -out key.pub"


def sign(folder: Path, key: "Ed25519PrivateKey") -> Path:
    """Sign a run's checksums with a private key; return the signature's file.

    Raises:
        OSError: There are no checksums, or the signature cannot be written.
    """
    path = folder / SIGNATURE
    write_atomically(path, key.sign(read_bytes(folder, CHECKSUMS, _MOST_BYTES)))
    return path


def check_signature(folder: Path, key: "Ed25519PublicKey") -> None:
    """Check that a run's checksums were signed with the private key of a public one.

    Raises:
        RecordError: There are no checksums or no signature, or it is of other checksums or of another key.
    """
    from cryptography.exceptions import InvalidSignature

    for name, reason in ((CHECKSUMS, "it is no run's folder"), (SIGNATURE, "it is not signed")):
        if not is_there(folder, name):
            raise RecordError(f"{folder} has no {name}: {reason}")
    try:
        key.verify(read_bytes(folder, SIGNATURE, _MOST_BYTES), read_bytes(folder, CHECKSUMS, _MOST_BYTES))
    except InvalidSignature as error:
        raise RecordError(
            f"{folder / SIGNATURE} is no signature of {CHECKSUMS} by the key that was given: the run was changed after "
            "it was signed, or is signed with another key"
        ) from error


def read_private_key(path: Path) -> "Ed25519PrivateKey":
    """Read a private Ed25519 key without a password, in PEM or as OpenSSH has it.

    Raises:
        ConfigError: The file holds none.
    """
    check_installed("cryptography", "sign=")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    data = _key_data("sign", path)
    load = serialization.load_ssh_private_key if b"OPENSSH" in data else serialization.load_pem_private_key
    try:
        found = load(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"sign={str(path)!r} holds no private key that is without a password; {_HOW}") from error
    if not isinstance(found, Ed25519PrivateKey):
        raise ConfigError(f"sign={str(path)!r} holds a key of another kind than Ed25519; {_HOW}")
    return found


def read_public_key(path: Path) -> "Ed25519PublicKey":
    """Read a public Ed25519 key, in PEM or as OpenSSH has it.

    Raises:
        ConfigError: The file holds none.
    """
    check_installed("cryptography", "key=")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    data = _key_data("key", path)
    load = serialization.load_ssh_public_key if data.startswith(b"ssh-") else serialization.load_pem_public_key
    try:
        found = load(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"key={str(path)!r} holds no public key; {_HOW}") from error
    if not isinstance(found, Ed25519PublicKey):
        raise ConfigError(f"key={str(path)!r} holds a key of another kind than Ed25519; {_HOW}")
    return found


def _key_data(name: str, path: Path) -> bytes:
    try:
        real = path.resolve()
        return read_bytes(real.parent, real.name, _MOST_KEY_BYTES)
    except (OSError, RecordError) as error:
        raise ConfigError(f"{name}={str(path)!r} cannot be read: {one_line(error)}") from error

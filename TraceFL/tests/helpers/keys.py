"""Keys of one's own, written to files."""

from cryptography.hazmat.primitives import serialization

PEM, SSH = serialization.Encoding.PEM, serialization.Encoding.OpenSSH
PKCS8, PRIVATE_SSH = serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.OpenSSH
NO_PASSWORD = serialization.NoEncryption()


def write_key(folder, key, name="key", ssh=False, password=None):
    """Write a private and its public key; return both files."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    hidden = NO_PASSWORD if password is None else serialization.BestAvailableEncryption(password)
    private.write_bytes(key.private_bytes(PEM, PRIVATE_SSH if ssh else PKCS8, hidden))
    public_format = serialization.PublicFormat.OpenSSH if ssh else serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(SSH if ssh else PEM, public_format))
    return private, public

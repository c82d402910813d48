"""Signatures of a run's checksums: who has the key, and nobody else, can make one."""

import os
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.helpers.keys import write_key
from tracefl.errors import ConfigError, RecordError
from tracefl.records.checksums import CHECKSUMS
from tracefl.records.signature import SIGNATURE, check_signature, read_private_key, read_public_key, sign

_BOUNDS = ("-----BEGIN OPENSSH PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----")
_LOCKED = (
    "b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABCBJ1NqGIx4QbZ7yYzNK0TgAAAAEAAAAAEA"
    "AAAzAAAAC3NzaC1lZDI1NTE5AAAAIJIciRe/VR2juhpfQ/rjVqpXjhCbywAv5jonGYXhgFq1AAAAkD8LiMnz8wVklimN45Rw"
    "LeXetQ/tY2CIxLwBCRiEWxQnqUUxxJCHR+OVlZOz3kUgkFt9baCDhtPTDRCIXXtI9u4LqLV7mhJl+vTSEPYTlJu1oLPTmWGG"
    "93iDEdNse6Iz66uk1Uh4YvSDlRGc/PS3mlPArVcpaUGIzHPZlEgXN075NCvuXCSs3vcD8hs3fs2mxg=="
)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / CHECKSUMS).write_text(f"{'0' * 64}  config.yaml\n")
    return folder


@pytest.fixture
def keys(tmp_path):
    return write_key(tmp_path, Ed25519PrivateKey.generate())


def is_signed(folder, public):
    check_signature(folder, read_public_key(public))
    return True


@pytest.mark.parametrize("ssh", [False, True])
def test_a_signature_is_checked_by_the_public_key(folder, tmp_path, ssh):
    private, public = write_key(tmp_path, Ed25519PrivateKey.generate(), ssh=ssh)
    assert sign(folder, read_private_key(private)) == folder / SIGNATURE
    assert len((folder / SIGNATURE).read_bytes()) == 64
    assert is_signed(folder, public)


def test_openssl_makes_the_keys_and_says_the_same(folder, tmp_path, monkeypatch):
    """By the commands of the module's docstring and of the pages."""
    monkeypatch.chdir(tmp_path)
    make = "openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout -out key.pub"
    subprocess.run(make, shell=True, check=True)
    sign(folder, read_private_key(tmp_path / "key.pem"))
    assert is_signed(folder, tmp_path / "key.pub")
    check = f"openssl pkeyutl -verify -pubin -inkey ../key.pub -rawin -in {CHECKSUMS} -sigfile {SIGNATURE}"
    done = subprocess.run(check, shell=True, check=True, cwd=folder, capture_output=True, text=True)
    assert "Signature Verified Successfully" in done.stdout
    (folder / CHECKSUMS).write_text("changed")
    assert subprocess.run(check, shell=True, check=False, cwd=folder, capture_output=True).returncode == 1
    with pytest.raises(RecordError):
        is_signed(folder, tmp_path / "key.pub")


def test_a_signature_of_other_checksums_or_of_another_key_is_refused(folder, keys, tmp_path):
    private, public = keys
    sign(folder, read_private_key(private))
    _, other = write_key(tmp_path, Ed25519PrivateKey.generate(), "other")
    with pytest.raises(RecordError, match="is no signature of SHA256SUMS by the key that was given"):
        is_signed(folder, other)
    (folder / CHECKSUMS).write_text((folder / CHECKSUMS).read_text() + "\n")
    with pytest.raises(RecordError, match="the run was changed after it was signed, or is signed with another key"):
        is_signed(folder, public)
    sign(folder, read_private_key(private))  # again, in place of the old one
    assert is_signed(folder, public)


@pytest.mark.parametrize(
    "damage", [lambda _: b"", lambda s: s[:-1], lambda s: s + b"\n", lambda s: s[:9] + b"x" + s[10:]]
)
def test_a_damaged_signature_is_refused(folder, keys, damage):
    private, public = keys
    path = sign(folder, read_private_key(private))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RecordError, match="is no signature of SHA256SUMS"):
        is_signed(folder, public)


def test_what_is_missing_or_no_file_is_said(folder, keys):
    private, public = keys
    with pytest.raises(RecordError, match=r"has no SHA256SUMS\.sig: it is not signed"):
        is_signed(folder, public)
    sign(folder, read_private_key(private)).rename(folder.parent / "elsewhere")
    (folder / SIGNATURE).symlink_to(folder.parent / "elsewhere")
    with pytest.raises(RecordError, match=r"SHA256SUMS\.sig is a link"):
        is_signed(folder, public)
    (folder / CHECKSUMS).unlink()
    with pytest.raises(RecordError, match="has no SHA256SUMS: it is no run's folder"):
        is_signed(folder, public)
    with pytest.raises(FileNotFoundError):
        sign(folder, read_private_key(private))


@pytest.mark.parametrize("kind", ["ed448", "ec", "rsa"])
def test_a_key_of_another_kind_is_refused(tmp_path, kind):
    make = {
        "ed448": ed448.Ed448PrivateKey.generate,
        "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
    }
    private, public = write_key(tmp_path, make[kind]())
    with pytest.raises(
        ConfigError, match=r"sign='.*key\.pem' holds a key of another kind than Ed25519; make one with: "
    ):
        read_private_key(private)
    with pytest.raises(
        ConfigError, match=r"key='.*key\.pub' holds a key of another kind than Ed25519; make one with: "
    ):
        read_public_key(public)


def test_a_key_with_a_password_is_refused(tmp_path):
    private, public = write_key(tmp_path, Ed25519PrivateKey.generate(), password=b"secret")
    with pytest.raises(ConfigError, match="holds no private key that is without a password"):
        read_private_key(private)
    read_public_key(public)


def test_a_key_with_a_password_that_openssh_made_is_refused(tmp_path):
    """A throw-away key of ``ssh-keygen -t ed25519 -N secret``, which may need a library to be opened at all."""
    path = tmp_path / "key"
    path.write_text(
        "\n".join((*_BOUNDS[:1], *(_LOCKED[i : i + 70] for i in range(0, len(_LOCKED), 70)), _BOUNDS[1], ""))
    )
    with pytest.raises(ConfigError, match="holds no private key that is without a password"):
        read_private_key(path)


def test_the_keys_are_not_taken_for_each_other(keys):
    private, public = keys
    with pytest.raises(ConfigError, match="holds no private key"):
        read_private_key(public)
    with pytest.raises(ConfigError, match="holds no public key"):
        read_public_key(private)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"ssh-ed25519 AAAA", b"-----BEGIN OPENSSH PRIVATE KEY-----\n"]
)
def test_what_is_no_key_is_refused(tmp_path, content):
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="holds no private key"):
        read_private_key(path)
    with pytest.raises(ConfigError, match="holds no public key"):
        read_public_key(path)


@pytest.mark.parametrize("what", ["missing", "folder", "pipe", "huge"])
def test_a_key_that_cannot_be_read_is_one_line(tmp_path, what):
    path = tmp_path / "key"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "huge":
        path.touch()
        os.truncate(path, 1 << 42)
    for read in (read_private_key, read_public_key):
        with pytest.raises(ConfigError, match="cannot be read: ") as caught:
            read(path)
        assert len(str(caught.value).splitlines()) == 1


def test_a_key_may_lie_behind_a_link(tmp_path, keys):
    (tmp_path / "link").symlink_to(keys[0])
    assert read_private_key(tmp_path / "link").public_key() == read_public_key(keys[1])

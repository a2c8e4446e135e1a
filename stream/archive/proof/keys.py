"""Signing keys (Ed25519), and how each key signs its successor. The only file that knows ``cryptography``.

A private key is in a file that only its owner may read, and never in the archive. Its public key is in the archive as
``_digests/keys/<id>.json``. The id is a hash of the public key, so an auditor who wrote the id down can recognise the
key. The first key, the root, signs itself. Each later key is signed by the key that it replaces: the keys that sign
digests form one line. A key for receipts is signed by a key of that line and can sign nothing but receipts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from stream.archive.log import canonical
from stream.errors import ArchiveError, ConfigurationError

KEYS: Final = "_digests/keys/"
FORMAT: Final = 1
_ID_DIGITS: Final = 32

Use = Literal["digests", "receipts"]


class InvalidKey(ArchiveError):
    """The bytes are not a public key in the form of the archive, or the key contradicts itself."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key in the archive: raw bytes [32], what it may sign, and the signature of the key that says so."""

    key: bytes
    use: Use
    made_at_ms: int
    signed_by: str
    signature: str = ""

    @property
    def id(self) -> str:
        """The first 32 hexadecimal digits of the SHA-256 of the key."""
        return hashlib.sha256(self.key).hexdigest()[:_ID_DIGITS]

    def signs(self, data: bytes, signature: str) -> bool:
        """Say whether ``signature`` (hexadecimal) is this key's signature of ``data``."""
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(bytes.fromhex(signature), data)
        except (InvalidSignature, ValueError):
            return False
        return True


class PrivateKey:
    """A private key. Its ``repr`` shows only its id."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes_raw()
        self.id = hashlib.sha256(self.public).hexdigest()[:_ID_DIGITS]

    @classmethod
    def generate(cls) -> Self:
        """Make a new key from the random numbers of the operating system."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a key from its file.

        Raises:
            ConfigurationError: the file cannot be read, others may read it, or it has no Ed25519 key.

        """
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read()
        except OSError as error:
            raise ConfigurationError(
                f"signing key {path}: {error.strerror}; name the file that `whyrec archive keys new` wrote"
            ) from error
        if mode & 0o077:
            raise ConfigurationError(
                f"signing key {path}: others may read it (mode {mode & 0o777:o}); expected 600: chmod 600 {path}"
            )
        try:
            key = load_pem_private_key(data, password=None)
        except (ValueError, TypeError):
            # Not chained: the message of the cause may quote the content of the file.
            raise ConfigurationError(f"signing key {path}: expected a private key in PEM form") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigurationError(f"signing key {path}: expected an Ed25519 key, got {type(key).__name__}")
        return cls(key)

    def save(self, path: Path) -> None:
        """Write the key to a new file that only its owner may read.

        Raises:
            ConfigurationError: the file exists, or cannot be written.

        """
        data = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            raise ConfigurationError(f"{path} exists, and a key is never overwritten; name another file") from None
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}; name a file in a folder that exists") from error

    def sign(self, data: bytes) -> str:
        """Return the signature of these bytes, hexadecimal."""
        return self._key.sign(data).hex()

    def __repr__(self) -> str:
        return f"PrivateKey({self.id})"


@dataclass(frozen=True, slots=True)
class Keyring:
    """The valid keys of an archive: ``line`` sign digests, oldest first; ``receipts`` sign only receipts."""

    line: tuple[PublicKey, ...] = ()
    receipts: tuple[PublicKey, ...] = ()

    @property
    def current(self) -> PublicKey | None:
        """The key that signs digests now."""
        return self.line[-1] if self.line else None

    def generation(self, key_id: str) -> int | None:
        """Return how many rotations after the root a key came; None if the key does not sign digests."""
        return next((place for place, key in enumerate(self.line) if key.id == key_id), None)

    def for_receipt(self, key_id: str) -> PublicKey | None:
        """Return the key with this id if it may sign receipts: a key for receipts, or one that signs digests."""
        return next((key for key in (*self.receipts, *self.line) if key.id == key_id), None)


def vouch(private: PrivateKey, key: bytes, use: Use, made_at_ms: int) -> PublicKey:
    """Sign a public key (raw bytes [32]) by ``private``. A key that is signed by its own private key is a root."""
    unsigned = PublicKey(key, use, made_at_ms, private.id)
    return PublicKey(key, use, made_at_ms, private.id, private.sign(_signed_part(unsigned)))


def encode(key: PublicKey) -> bytes:
    """Write a public key as canonical JSON."""
    return canonical.encode(_document(key) | {"signature": key.signature})


def decode(data: bytes) -> PublicKey:
    """Decode a public key.

    Raises:
        InvalidKey: the bytes are not what :func:`encode` writes.

    """
    try:
        document = json.loads(data)
        if document["format"] != FORMAT:
            raise InvalidKey(f"format {document['format']!r}; expected {FORMAT}: update whyrec")
        key = PublicKey(
            bytes.fromhex(document["key"]),
            document["use"],
            document["made_at_ms"],
            document["signed_by"],
            document["signature"],
        )
        is_valid = encode(key) == data and len(key.key) == 32 and key.use in ("digests", "receipts")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidKey(f"not a public key: {type(error).__name__} {error}") from error
    if not is_valid:
        raise InvalidKey("a public key that is not in canonical form: another program wrote or edited it")
    return key


def key_of(public: PublicKey) -> str:
    """Return the key of the object that has a public key."""
    return f"{KEYS}{public.id}.json"


def keyring(stored: Mapping[str, bytes]) -> tuple[Keyring, list[tuple[str, str]]]:
    """Return the keyring of an archive, and the object key and fault of each public key that breaks a rule.

    ``stored`` are the public keys as bytes, by the keys of their objects.
    """
    faults: list[tuple[str, str]] = []
    known: dict[str, PublicKey] = {}
    for name, data in sorted(stored.items()):
        try:
            key = decode(data)
        except InvalidKey as error:
            faults.append((name, str(error)))
            continue
        if key_of(key) != name:
            faults.append((name, f"holds the key {key.id}"))
        else:
            known[key.id] = key
    valid = {}
    for key in known.values():
        if key.signed_by not in known:
            faults.append((key_of(key), f"is signed by {key.signed_by}, which is not a key of this archive"))
        elif not known[key.signed_by].signs(_signed_part(key), key.signature):
            faults.append((key_of(key), f"does not have a valid signature of {key.signed_by}"))
        else:
            valid[key.id] = key
    digests = [key for key in valid.values() if key.use == "digests"]
    line: list[PublicKey] = []
    following = [key for key in digests if key.signed_by == key.id]
    if not following and valid:
        faults.append((KEYS, "has no root: no key signs itself"))
    while following:
        line.append(_oldest(following))
        faults.extend(
            (key_of(key), f"is signed by {key.signed_by}, which had signed its successor {line[-1].id} before")
            for key in following
            if key is not line[-1]
        )
        following = [key for key in digests if key.signed_by == line[-1].id and key.id != line[-1].id]
    ids = {key.id for key in line}
    for_receipts = tuple(key for key in valid.values() if key.use == "receipts" and key.signed_by in ids)
    return Keyring(tuple(line), for_receipts), faults


def trusted(text: str) -> str:
    """Return the id of the key that ``text`` names: an id, or the file of a public key.

    Raises:
        ConfigurationError: ``text`` is neither.

    """
    if len(text) == _ID_DIGITS and set(text) <= set("0123456789abcdef"):
        return text
    try:
        return decode(Path(text).read_bytes()).id
    except (OSError, ArchiveError) as error:
        raise ConfigurationError(
            f"--trust {text}: expected a key id of {_ID_DIGITS} hexadecimal digits, or a public key's file ({error})"
        ) from error


def _oldest(keys: Iterable[PublicKey]) -> PublicKey:
    return min(keys, key=lambda key: (key.made_at_ms, key.id))


def _document(key: PublicKey) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "id": key.id,
        "key": key.key.hex(),
        "made_at_ms": key.made_at_ms,
        "signed_by": key.signed_by,
        "use": key.use,
    }


def _signed_part(key: PublicKey) -> bytes:
    return canonical.encode(_document(key))

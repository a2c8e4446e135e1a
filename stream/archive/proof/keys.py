"""Who signs: Ed25519 keys, and how one vouches for the next. The only file that knows ``cryptography``.

A private key lives in a file that only its owner may read, and never in the archive. Its public half lies in the
archive as ``_digests/keys/<id>.json``; its id is a hash of it, so that an id that an auditor wrote down pins the key.
The first key, the root, signs itself. Each one after it is signed by the one before, which it replaces: the keys that
sign digests form one line. A key that signs receipts is signed by one of that line and can sign nothing else.
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
    """Bytes that are no public key of ours, or one that contradicts itself."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key as the archive holds it: raw bytes [32], what it may sign, and who says so."""

    key: bytes
    use: Use
    made_at_ms: int
    signed_by: str
    signature: str = ""

    @property
    def id(self) -> str:
        """The first 32 hexadecimal digits of the key's SHA-256."""
        return hashlib.sha256(self.key).hexdigest()[:_ID_DIGITS]

    def signs(self, data: bytes, signature: str) -> bool:
        """Say whether this key made this signature (hexadecimal) of these bytes."""
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(bytes.fromhex(signature), data)
        except (InvalidSignature, ValueError):
            return False
        return True


class PrivateKey:
    """A key that can sign. It shows nothing of itself when printed."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes_raw()
        self.id = hashlib.sha256(self.public).hexdigest()[:_ID_DIGITS]

    @classmethod
    def generate(cls) -> Self:
        """Make a new one from the system's random numbers."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read one from its file.

        Raises:
            ConfigurationError: no such file, one that others may read, or no Ed25519 key in it.

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
            # Not chained: the message of the cause may quote what is in the file.
            raise ConfigurationError(f"signing key {path}: no private key in PEM form") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigurationError(f"signing key {path}: expected an Ed25519 key, got {type(key).__name__}")
        return cls(key)

    def save(self, path: Path) -> None:
        """Write it to a new file that only its owner may read.

        Raises:
            ConfigurationError: the file exists, or can't be written.

        """
        data = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            raise ConfigurationError(f"{path} exists, and a key is never written over; name another file") from None
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}; name a file in a folder that exists") from error

    def sign(self, data: bytes) -> str:
        """Return the signature of these bytes, hexadecimal."""
        return self._key.sign(data).hex()

    def __repr__(self) -> str:
        return f"PrivateKey({self.id})"


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys of an archive that hang together: those that sign digests, oldest first, and those for receipts."""

    line: tuple[PublicKey, ...] = ()
    receipts: tuple[PublicKey, ...] = ()

    @property
    def current(self) -> PublicKey | None:
        """The key that signs digests now."""
        return self.line[-1] if self.line else None

    def generation(self, key_id: str) -> int | None:
        """Return how many rotations after the root a key came; None if it does not sign digests here."""
        return next((place for place, key in enumerate(self.line) if key.id == key_id), None)

    def for_receipt(self, key_id: str) -> PublicKey | None:
        """Return a key that may sign receipts: one made for it, or one that signs digests."""
        return next((key for key in (*self.receipts, *self.line) if key.id == key_id), None)


def vouch(private: PrivateKey, key: bytes, use: Use, made_at_ms: int) -> PublicKey:
    """Sign a public key (raw bytes [32]); with its own private key, it becomes a root."""
    unsigned = PublicKey(key, use, made_at_ms, private.id)
    return PublicKey(key, use, made_at_ms, private.id, private.sign(_signed_part(unsigned)))


def encode(key: PublicKey) -> bytes:
    """Write a public key as canonical JSON."""
    return canonical.encode(_document(key) | {"signature": key.signature})


def decode(data: bytes) -> PublicKey:
    """Read a public key back.

    Raises:
        InvalidKey: not what :func:`encode` writes.

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
        sound = encode(key) == data and len(key.key) == 32 and key.use in ("digests", "receipts")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidKey(f"no public key: {type(error).__name__} {error}") from error
    if not sound:
        raise InvalidKey("no public key in canonical form: was it edited?")
    return key


def key_of(public: PublicKey) -> str:
    """Return the key in the archive under which a public key lies."""
    return f"{KEYS}{public.id}.json"


def keyring(stored: Mapping[str, bytes]) -> tuple[Keyring, list[tuple[str, str]]]:
    """Put the public keys together, by their keys in the archive; and say of each that does not fit why."""
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
    sound = {}
    for key in known.values():
        if key.signed_by not in known:
            faults.append((key_of(key), f"is signed by {key.signed_by}, a key that is not here"))
        elif not known[key.signed_by].signs(_signed_part(key), key.signature):
            faults.append((key_of(key), f"does not bear the signature of {key.signed_by}"))
        else:
            sound[key.id] = key
    digests = [key for key in sound.values() if key.use == "digests"]
    line: list[PublicKey] = []
    following = [key for key in digests if key.signed_by == key.id]
    if not following and sound:
        faults.append((KEYS, "no root: no key that signs itself"))
    while following:
        line.append(_oldest(following))
        faults.extend(
            (key_of(key), f"is signed by {key.signed_by}, which vouched for {line[-1].id} already")
            for key in following
            if key is not line[-1]
        )
        following = [key for key in digests if key.signed_by == line[-1].id and key.id != line[-1].id]
    ids = {key.id for key in line}
    lent = tuple(key for key in sound.values() if key.use == "receipts" and key.signed_by in ids)
    return Keyring(tuple(line), lent), faults


def trusted(text: str) -> str:
    """Return the id of the key that ``text`` names: an id, or a file that holds a public key.

    Raises:
        ConfigurationError: neither.

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

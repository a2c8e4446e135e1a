"""What every store promises; the same tests over memory, a local folder and a real S3 server."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stream.archive.objects import (
    MemoryStore,
    ObjectExists,
    ObjectInfo,
    ObjectMissing,
    Retrying,
    Store,
    StoreUnavailable,
    get_each,
)
from stream.archive.s3 import S3Options, S3Store
from stream.archive.store import LocalStore, open_store
from stream.errors import ArchiveError, ConfigurationError


def keys(store: Store, prefix: str, after: str = "") -> list[str]:
    return [info.key for info in store.list(prefix, after)]


def test_what_is_put_is_got_back(store: Store) -> None:
    store.put_if_absent("a/b.bin", b"\x00content")
    store.put("a/c.bin", b"")
    assert store.get("a/b.bin") == b"\x00content"
    assert store.get("a/c.bin") == b""


def test_the_first_to_put_if_absent_wins(store: Store) -> None:
    store.put_if_absent("key", b"first")
    with pytest.raises(ObjectExists):
        store.put_if_absent("key", b"second")
    assert store.get("key") == b"first"


def test_of_many_at_once_exactly_one_wins(store: Store) -> None:
    outcomes: list[bytes | None] = []

    def race(content: bytes) -> None:
        try:
            store.put_if_absent("race/key", content)
        except ObjectExists:
            outcomes.append(None)
        else:
            outcomes.append(content)

    threads = [threading.Thread(target=race, args=(bytes([number]) * 1000,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [outcome for outcome in outcomes if outcome is not None]
    assert len(outcomes) == 8
    assert winners == [store.get("race/key")]


def test_putting_the_same_content_again_is_no_error_but_other_content_is(store: Store) -> None:
    store.put("named-by-content", b"x")
    store.put("named-by-content", b"x")
    with pytest.raises(ArchiveError, match="other content"):
        store.put("named-by-content", b"y")
    assert store.get("named-by-content") == b"x"


def test_a_missing_object_is_said_to_be_missing(store: Store) -> None:
    with pytest.raises(ObjectMissing, match="nowhere"):
        store.get("nowhere")


def test_a_list_is_in_the_order_of_keys_below_a_prefix_and_after_a_key(store: Store) -> None:
    for key in ("t/10/b", "t/1/b", "t/1/a", "t/1/c", "u/1/a"):
        store.put_if_absent(key, key.encode())
    assert keys(store, "t/1/") == ["t/1/a", "t/1/b", "t/1/c"]
    assert keys(store, "t/1/", after="t/1/a") == ["t/1/b", "t/1/c"]
    assert keys(store, "t/1/", after="t/1/c") == []
    assert keys(store, "") == ["t/1/a", "t/1/b", "t/1/c", "t/10/b", "u/1/a"]
    assert keys(store, "nothing/") == []
    assert [info.size for info in store.list("u/")] == [5]


def test_deleting_is_final_and_may_be_repeated(store: Store) -> None:
    store.put_if_absent("a", b"1")
    store.delete("a")
    store.delete("a")
    assert keys(store, "") == []
    store.put_if_absent("a", b"2")
    assert store.get("a") == b"2"


def test_parts_of_an_object_can_be_read(store: Store) -> None:
    store.put_if_absent("a/b", bytes(range(200)))
    with store.open("a/b") as file:
        file.seek(100)
        assert file.read(3) == bytes([100, 101, 102])
        file.seek(-2, os.SEEK_END)
        assert file.read() == bytes([198, 199])
    with pytest.raises(ObjectMissing):
        store.open("a/nothing").read()


def test_keys_with_percent_signs_and_equals_stay_as_they_are(store: Store) -> None:
    key = "date=2026-01-02/region=a%2Fb/x-0.parquet"
    store.put_if_absent(key, b"1")
    assert keys(store, "date=2026-01-02/") == [key]
    assert store.get(key) == b"1"


def test_a_listing_of_more_than_one_page_is_whole(store: Store) -> None:
    # S3 lists a thousand keys a page.
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.put_if_absent(f"p/{number:06d}", b""), range(1010)))
    assert keys(store, "p/") == [f"p/{number:06d}" for number in range(1010)]
    assert keys(store, "p/", after="p/000004") == [f"p/{number:06d}" for number in range(5, 1010)]


def test_a_local_put_that_dies_half_way_leaves_no_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path / "archive")

    def die(_descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", die)
        with pytest.raises(KeyboardInterrupt):
            store.put_if_absent("date=x/a", b"half")
    assert keys(store, "") == []
    store.put_if_absent("date=x/a", b"whole")
    assert store.get("date=x/a") == b"whole"


def test_what_a_crash_left_half_written_is_cleared_a_day_later(tmp_path: Path) -> None:
    incoming = tmp_path / "_incoming"
    incoming.mkdir()
    (incoming / "yesterday").write_bytes(b"half")
    (incoming / "growing").write_bytes(b"half")
    os.utime(incoming / "yesterday", (0, 0))
    LocalStore(tmp_path).put_if_absent("a", b"x")
    assert [path.name for path in incoming.iterdir()] == ["growing"]


def test_a_file_that_is_deleted_between_listing_and_stat_is_left_out(tmp_path: Path) -> None:
    LocalStore(tmp_path).put_if_absent("date=x/kept", b"1")
    (tmp_path / "date=x" / "deleted").symlink_to("nowhere")  # it is listed, and stat finds no file
    assert keys(LocalStore(tmp_path), "") == ["date=x/kept"]


def test_files_that_come_and_go_disturb_no_listing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put_if_absent("date=x/kept", b"1")
    listed, stop = [], threading.Event()

    def list_all() -> None:
        while not stop.is_set():
            listed.append("date=x/kept" in keys(store, ""))

    with ThreadPoolExecutor(1) as pool:
        listing = pool.submit(list_all)
        for number in range(300):
            store.put_if_absent(f"date=x/{number}", b"1")
            store.delete(f"date=x/{number}")
        stop.set()
        listing.result()
    assert all(listed)


_LIST_AS_NOBODY = """
import os, sys
from pathlib import Path
from stream.archive.store import LocalStore
from stream.errors import ArchiveError
if os.geteuid() == 0:
    os.setuid(65534)  # permissions do not bind root
try:
    print([info.key for info in LocalStore(Path(sys.argv[1])).list(sys.argv[2])])
except ArchiveError as error:
    print(error)
"""


@pytest.mark.parametrize("prefix", ["", "date=x/", "date=x/region=EU/a"])
def test_a_folder_that_may_not_be_read_is_an_error_that_names_it(tmp_path: Path, prefix: str) -> None:
    root = tmp_path / "archive"
    LocalStore(root).put_if_absent("date=x/region=EU/a", b"1")
    closed = root / "date=x" / "region=EU"
    closed.chmod(0)
    for parent in root.parents:
        if tempfile.gettempdir() in map(str, parent.parents):
            parent.chmod(0o755)
    command = [sys.executable, "-c", _LIST_AS_NOBODY, str(root), prefix]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    closed.chmod(0o755)
    assert f"{closed} cannot be listed: not permitted" in done.stdout


def test_a_full_disk_is_reported_as_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnavailable, match="No space left"):
        store.put_if_absent("a", b"x")


@pytest.mark.parametrize("key", ["../outside", "/etc/passwd", "a/../../b", ""])
def test_a_local_key_cannot_leave_the_archive(tmp_path: Path, key: str) -> None:
    with pytest.raises(ArchiveError, match="stay inside"):
        LocalStore(tmp_path).get(key)


def test_urls_that_are_no_archive_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="gs://"):
        open_store("gs://bucket")
    with pytest.raises(ConfigurationError, match="no bucket"):
        open_store("s3://")
    for nothing in ("", " "):
        with pytest.raises(ConfigurationError, match="empty"):  # not the folder that one happens to be in
            open_store(nothing)


def test_credentials_never_show() -> None:
    assert "secret" not in repr(S3Options("http://x", "visible-id", "top-secret")).replace("secret_access_key", "")


def test_an_unreachable_s3_is_unavailable_and_names_no_credential() -> None:
    options = S3Options("http://127.0.0.1:9", "id-1234", "top-secret", connect_timeout_s=1, read_timeout_s=1)
    store = open_store("s3://bucket/p", options)
    assert isinstance(store, Retrying)
    with pytest.raises(StoreUnavailable) as caught:
        store.inner.put_if_absent("key", b"")
    assert "top-secret" not in f"{caught.value!r} {caught.value.__cause__!r}"


class Flaky:
    """A store whose answers get lost: it does what it is told, or not, and then says that it is unavailable."""

    url = "flaky:"

    def __init__(self, does: list[bool]) -> None:
        self.inner = MemoryStore()
        self._does = does

    def put_if_absent(self, key: str, data: bytes) -> None:
        if self._does:
            if self._does.pop(0):
                self.inner.put_if_absent(key, data)
            raise StoreUnavailable("no answer")
        self.inner.put_if_absent(key, data)

    def put(self, key: str, data: bytes, storage_class: str | None = None) -> None:
        self.inner.put(key, data, storage_class)

    def get(self, key: str) -> bytes:
        if self._does:
            self._does.pop(0)
            raise StoreUnavailable("no answer")
        return self.inner.get(key)

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        return self.inner.list(prefix, after)

    def delete(self, key: str) -> None:
        self.inner.delete(key)


def test_many_objects_are_read_in_the_order_of_the_keys_given(store: Store) -> None:
    for number in range(50):
        store.put(f"{number:02d}", str(number).encode())
    keys = [f"{number:02d}" for number in range(49, -1, -1)]
    assert list(get_each(store, keys)) == [(key, str(int(key)).encode()) for key in keys]
    assert list(get_each(store, [])) == []
    some = get_each(store, ["01", "99", "02"])
    assert next(some) == ("01", b"1")
    with pytest.raises(ObjectMissing):
        next(some)


def test_the_storage_class_reaches_s3() -> None:
    sent: list[str | None] = []

    class Bucket(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # the client sends its body once it reads "100 Continue"

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            sent.append(self.headers.get("x-amz-storage-class"))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Bucket) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        store = S3Store("s3://bucket/a", S3Options(f"http://127.0.0.1:{server.server_port}", "id", "secret"))
        store.put("cold", b"1", "GLACIER_IR")
        store.put("hot", b"1")
        server.shutdown()
    assert sent == ["GLACIER_IR", None]


@pytest.mark.parametrize("does", [[False], [True], [False, True], [False, False, True]])
def test_a_put_whose_answer_was_lost_is_recognised_as_our_own(does: list[bool]) -> None:
    pauses: list[float] = []
    store = Retrying(Flaky(does), sleep=pauses.append)
    store.put_if_absent("key", b"mine")
    assert store.get("key") == b"mine"
    assert len(pauses) >= 1


def test_a_conflict_after_a_lost_answer_is_still_a_conflict() -> None:
    flaky = Flaky([False])
    flaky.inner.put_if_absent("key", b"theirs")
    store = Retrying(flaky, sleep=lambda _: None)
    with pytest.raises(ObjectExists):
        store.put_if_absent("key", b"mine")


def test_retrying_ends_and_waits_longer_each_time() -> None:
    pauses: list[float] = []
    store = Retrying(Flaky([False] * 10), attempts=4, first_pause_s=1.0, longest_pause_s=100.0, sleep=pauses.append)
    with pytest.raises(StoreUnavailable):
        store.put_if_absent("key", b"")
    assert len(pauses) == 3
    assert 0.5 <= pauses[0] <= 1.0 <= pauses[1] <= 2.0 <= pauses[2] <= 4.0

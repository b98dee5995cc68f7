"""The same code in a bucket, on a real S3 server."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pointcloud.errors import StorageError
from pointcloud.formats.las import SUFFIXES
from pointcloud.formats.reader import read_cloud
from pointcloud.formats.s3dis import is_room
from pointcloud.storage import files, filesystem, inputs, ledger
from tests.support.clouds import assert_one_sentence, write_las
from tests.support.s3 import KEY, SECRET, S3Server

MULTIPART = 24 << 20  # pyarrow sends parts of 10 MB
UPLOADER = """
import sys
from pointcloud.storage import files
while True:
    files.write_bytes(sys.argv[1], bytes(int(sys.argv[2])))
"""


def test_a_fingerprint_in_a_bucket_is_had_without_hashing(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(files, "content_hash")
    one, other = files.join(bucket, "one.laz"), files.join(bucket, "deep", "other.laz")
    content = bytearray(os.urandom(1 << 20))
    for uri in (one, other):
        files.write_bytes(uri, content)
    before = files.fingerprint(one)
    assert before.startswith("etag:")
    assert before.endswith(f":{1 << 20}")
    assert files.fingerprint(other) == before
    content[-1] ^= 1
    files.write_bytes(one, content)
    assert files.fingerprint(one) != before
    with pytest.raises(StorageError) as error:
        files.fingerprint(files.join(bucket, "missing.laz"))
    assert_one_sentence(error, "missing.laz")


def test_an_upload_that_fails_is_said_and_leaves_nothing(
    bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "_PATIENCE_SECONDS", 0.0)
    said = []
    # The server has no room for the files of so many buckets.
    for number in range(3):
        s3_server.filesystem().create_dir(f"crowded-{number}")
        uri = f"s3://crowded-{number}/x"
        try:
            files.write_bytes(uri, b"content")
        except StorageError as error:
            said.append(str(error))
            assert not files.exists(uri)
        else:
            assert files.read_bytes(uri) == b"content"
    assert said
    assert all(sentence.startswith("cannot write 's3://crowded") for sentence in said)


# --- whole or not there


def test_an_object_of_many_parts_comes_back_as_it_was(bucket: str, s3_server: S3Server) -> None:
    uri = files.join(bucket, "large file.bin")
    content = np.random.default_rng(0).bytes(MULTIPART)
    files.write_bytes(uri, content)
    assert not files.fingerprint(uri).split(":")[1].endswith("-1"), "more than one part"
    assert files.read_bytes(uri) == content
    assert files.content_hash(uri)
    with files.open_input(uri) as stream:
        for place in (0, 10_000_000 - 3, MULTIPART - 5, 17):
            stream.seek(place)
            assert stream.read(10) == content[place : place + 10]
        assert stream.size() == MULTIPART


@pytest.mark.parametrize("kind", ["local", "bucket"])
def test_readers_see_the_old_or_the_new_and_nothing_between(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = str(tmp_path) if kind == "local" else request.getfixturevalue("bucket")
    uri = files.join(folder, "x.bin")
    # Longer and shorter by turns; the first byte says how long.
    contents = [bytes([n]) * (1 + (12 << 20) * (n % 2) + n) for n in range(6)]
    seen: list[int] = []
    wrong: list[str] = []
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            if not files.exists(uri):
                continue
            content = files.read_bytes(uri)
            if content == contents[content[0]]:
                seen.append(content[0])
            else:
                wrong.append(f"{len(content)} bytes of {content[0]}")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for content in contents:
            files.write_bytes(uri, content)
            time.sleep(0.3)
    finally:
        ended.set()
        reader.join(60)
    assert wrong == []
    assert len(set(seen)) > 2
    assert seen == sorted(seen)


def test_a_killed_upload_leaves_nothing_under_the_name(bucket: str, tmp_path: Path) -> None:
    uri = files.join(bucket, "never.bin")
    # Long enough that it cannot be complete when it is killed.
    uploader = subprocess.Popen(
        [sys.executable, "-c", UPLOADER, uri, str(1 << 30)],
        env={**os.environ, "TMPDIR": str(tmp_path)},  # what it leaves there goes with the test
    )
    time.sleep(2.5)
    assert not files.exists(uri)
    uploader.send_signal(signal.SIGKILL)
    uploader.wait(10)
    for left in tmp_path.iterdir():
        left.unlink()
    assert not files.exists(uri)
    assert files.list_files(bucket) == []


def test_a_file_that_is_replaced_while_it_is_open_is_not_read_as_one(bucket: str) -> None:
    uri = files.join(bucket, "x.bin")
    files.write_bytes(uri, bytes(8 << 20))
    with files.open_input(uri) as stream:
        stream.read(10)
        files.write_bytes(uri, b"short")
        stream.seek(6 << 20)
        with pytest.raises(StorageError) as error:
            stream.read(10)
    assert_one_sentence(error, "was replaced while it was read")


def test_scans_and_records_are_found_and_read_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    path = write_las(tmp_path / "a b.laz", 2000)
    files.write_bytes(files.join(bucket, "tiles", "a b.laz"), path.read_bytes())
    for pattern in (f"{bucket}/tiles", f"{bucket}/tiles/*.laz", f"{bucket}/**/*.laz"):
        (source,) = inputs.expand([pattern], SUFFIXES)
        assert np.array_equal(read_cloud(source.uri).xyz, read_cloud(str(path)).xyz)
    record = ledger.Record(stage="preprocess", scan="a b.laz", key="1", state=ledger.DONE, path=source.name)
    ledger.write(bucket, record)
    assert ledger.read_all(bucket, "preprocess") == {"a b.laz": record}


def test_parquet_is_read_row_group_by_row_group_in_a_bucket(bucket: str) -> None:
    table = pa.table({"x": np.random.default_rng(0).random(400_000), "n": np.arange(400_000)})
    uri = files.join(bucket, "t.parquet")
    with files.staged(uri) as part:
        pq.write_table(table, part, row_group_size=100_000)
    with files.open_input(uri) as stream:
        file = pq.ParquetFile(stream)
        assert file.read_row_group(2).equals(table.slice(200_000, 100_000))
        assert file.read().equals(table)


# --- refused, and said so without the secret


def said(caplog: pytest.LogCaptureFixture, error: pytest.ExceptionInfo[StorageError]) -> str:
    return caplog.text + "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_SECRET_ACCESS_KEY", "a-wrong/secret"),
        ("AWS_ACCESS_KEY_ID", "a-wrong-key"),
        ("AWS_SECRET_ACCESS_KEY", None),
    ],
)
def test_wrong_or_missing_credentials_are_refused_at_once(
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    value: str | None,
) -> None:
    caplog.set_level(logging.DEBUG)
    uri = files.join(bucket, "x.json")
    files.write_bytes(uri, b"{}")
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    for act in (
        lambda: files.read_json(uri),
        lambda: files.write_json(uri, {}),
        lambda: files.exists(uri),
        lambda: inputs.expand([f"{bucket}/*.laz"], SUFFIXES),
        lambda: files.delete(uri),
        lambda: files.fingerprint(uri),
        lambda: files.content_hash(uri),
        lambda: files.touch(uri),
    ):
        with pytest.raises(StorageError, match="access is refused") as error:
            act()
        assert_one_sentence(error, "AWS_SECRET_ACCESS_KEY")
        assert not [s for s in (SECRET, value or SECRET, KEY) if s in said(caplog, error)]
    assert time.monotonic() - began < 40, "not waited for"


def test_a_bucket_that_is_not_there_is_said(bucket: str) -> None:
    for pattern in ("s3://no-such-bucket/tiles/*.laz", "s3://no-such-bucket/tiles"):
        with pytest.raises(StorageError) as error:
            inputs.expand([pattern], SUFFIXES)
        assert_one_sentence(error, "no-such-bucket/tiles")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://KEY:SECRET@bucket/tiles",
        "s3://KEY:SEC/SECRET+x@bucket/tiles/a.laz",
        "s3://KEY:SECRET",
        "s3://SECRET@bucket/tiles",
        "s3://bucket/tiles?secret_key=SECRET&region=eu",
        "https://host/tiles?X-Amz-Signature=SECRET",
        "gs://user:SECRET@bucket/tiles",
        "abfs://container:SECRET@account.dfs.core.windows.net/tiles",
        "abfs://container@account.dfs.core.windows.net/tiles?sig=SECRET",
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(StorageError, match="with credentials in it") as error:
        files.exists(uri)
    assert_one_sentence(error, "in the environment")
    assert "SEC" not in "".join(traceback.format_exception(error.value)).replace("AWS_SECRET", "").replace(
        "CLIENT_SECRET", ""
    )


@pytest.mark.parametrize("uri", ["s3://bucket/a@b:c/x.laz", "gs://bucket/x", "s3://bucket/what?.laz"])
def test_what_only_looks_like_credentials_is_taken(bucket: str, uri: str) -> None:
    assert files.resolve(uri)[1] == uri.split("://")[1]


# --- away for a while


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens there


def test_a_server_that_stays_away_is_said_with_the_place_that_was_asked_for(bucket: str, away: None) -> None:
    with pytest.raises(StorageError) as error:
        is_room(f"{bucket}/tiles/*.laz")
    assert_one_sentence(error, f"{bucket}/tiles/*.laz'")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_server_that_is_away_for_20_s_costs_time_and_nothing_else(
    bucket: str, s3_server: S3Server, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    large = files.join(bucket, "large.bin")
    content = np.random.default_rng(1).bytes(MULTIPART)
    files.write_bytes(large, content)
    ended, errors = threading.Event(), []
    written: dict[str, bytes] = {}

    def work(number: int) -> None:
        try:
            for turn in itertools.count():
                if ended.is_set():
                    return
                uri = files.join(bucket, f"{number}", f"{turn}.bin")
                piece = bytes([number, turn % 256]) * (6 << 20 if turn % 4 == 0 else 100)
                files.write_bytes(uri, piece)
                written[uri] = piece
                assert files.read_bytes(uri) == piece
                if turn:
                    files.delete(files.join(bucket, f"{number}", f"{turn - 1}.bin"))
                    del written[files.join(bucket, f"{number}", f"{turn - 1}.bin")]
        except Exception as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    with files.open_input(large) as stream:
        assert stream.read(1000) == content[:1000]
        for worker in workers:
            worker.start()
        time.sleep(1)
        began = time.monotonic()
        process = s3_server.process
        assert process is not None
        if how == "killed":
            s3_server.kill()
            timer = threading.Timer(20, s3_server.start)
        else:
            process.send_signal(signal.SIGSTOP)
            timer = threading.Timer(20, process.send_signal, [signal.SIGCONT])
        timer.start()
        stream.seek(20_000_000)
        assert stream.read(1000) == content[20_000_000:20_001_000], "a file that was open before"
        assert time.monotonic() - began > 19
    timer.join(120)
    time.sleep(1)
    ended.set()
    for worker in workers:
        worker.join(180)
        assert not worker.is_alive()
    assert errors == []
    assert how == "frozen" or "s more: " in caplog.text, "what is waited for is said"
    assert len(written) == 2
    assert {uri: files.read_bytes(uri) for uri in written} == written
    names = [files.join(bucket, *file.name.split("/")) for file in files.list_files(bucket)]
    assert sorted(names) == sorted([large, *written])

"""The same code in a bucket, on a real S3 server."""

from __future__ import annotations

import os

import pytest

from pointcloud import filesystem, storage
from pointcloud.errors import StorageError
from tests.clouds import assert_one_sentence
from tests.s3 import S3Server


def test_a_fingerprint_in_a_bucket_is_had_without_hashing(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(storage, "content_hash")
    one, other = storage.join(bucket, "one.laz"), storage.join(bucket, "deep", "other.laz")
    content = bytearray(os.urandom(1 << 20))
    for uri in (one, other):
        storage.write_bytes(uri, content)
    before = storage.fingerprint(one)
    assert before.startswith("etag:")
    assert before.endswith(f":{1 << 20}")
    assert storage.fingerprint(other) == before
    content[-1] ^= 1
    storage.write_bytes(one, content)
    assert storage.fingerprint(one) != before
    with pytest.raises(StorageError) as error:
        storage.fingerprint(storage.join(bucket, "missing.laz"))
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
            storage.write_bytes(uri, b"content")
        except StorageError as error:
            said.append(str(error))
            assert not storage.exists(uri)
        else:
            assert storage.read_bytes(uri) == b"content"
    assert said
    assert all(sentence.startswith("cannot write 's3://crowded") for sentence in said)

"""The same code in a bucket, on a real S3 server."""

from __future__ import annotations

import os

import pytest

from pointcloud import storage
from pointcloud.errors import StorageError
from tests.clouds import assert_one_sentence


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

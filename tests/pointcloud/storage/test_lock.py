"""One writer at a time, on disk and in a bucket; who was killed or cut off does not keep the others out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pointcloud.errors import PointloomError
from pointcloud.storage import files, lock
from pointcloud.storage.lock import held
from tests.support.clouds import assert_one_sentence

OWNER = """
import sys, time
from pointcloud.storage.lock import held
with held(sys.argv[1], 60) as lock:
    print("held", flush=True)
    time.sleep(120)
"""
WRITER = """
import sys, time
from pathlib import Path
from pointcloud.storage import lock
lock._POLL_SECONDS = (0.05, 0.2)
busy = Path(sys.argv[2])
for _ in range(3):
    with lock.held(sys.argv[1], 60):
        busy.touch(exist_ok=False)
        time.sleep(0.02)
        busy.unlink()
"""


@pytest.fixture(params=["local", "bucket"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "data set")
    return files.join(request.getfixturevalue("bucket"), "data set")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_POLL_SECONDS", (0.05, 0.2))
    monkeypatch.setattr(lock, "_LOOKING_SECONDS", 0.5)


def claims(dataset: str) -> list[files.Stored]:
    return files.list_files(files.join(dataset, lock.FOLDER))


def forge(dataset: str, owner: lock.Owner) -> str:
    """A claim as another machine would have written it."""
    uri = files.join(dataset, lock.FOLDER, "0.json")
    files.write_json(uri, asdict(owner))
    return uri


def elsewhere() -> lock.Owner:
    return replace(lock._myself(), host="other-host", machine="other", since="2026-01-01T00:00:00+00:00")


def test_the_second_run_is_refused_by_name_and_let_in_afterwards(dataset: str) -> None:
    with held(dataset) as first:
        first.check()
        began = time.monotonic()
        with pytest.raises(PointloomError) as error, held(dataset):
            pass
        assert time.monotonic() - began < 30
        assert_one_sentence(error, f"process {os.getpid()} on ")
        first.check()
        assert len(claims(dataset)) == 1
    with held(dataset):
        assert len(claims(dataset)) == 1
    assert claims(dataset) == []


def test_who_may_wait_gets_it_when_it_is_free(dataset: str) -> None:
    free = threading.Event()

    def hold() -> None:
        with held(dataset):
            free.set()
            time.sleep(1.5)

    thread = threading.Thread(target=hold)
    thread.start()
    assert free.wait(10)
    began = time.monotonic()
    with held(dataset, wait_s=30):
        assert time.monotonic() - began > 1
    thread.join(10)


def test_an_error_inside_frees_it(dataset: str) -> None:
    with pytest.raises(KeyboardInterrupt), held(dataset):
        raise KeyboardInterrupt
    assert claims(dataset) == []


def test_of_many_threads_one_is_inside(dataset: str) -> None:
    inside, seen, errors = [0], [0], []

    def work() -> None:
        try:
            for _ in range(2):
                with held(dataset, wait_s=60):
                    inside[0] += 1
                    seen[0] = max(seen[0], inside[0])
                    time.sleep(0.02)
                    inside[0] -= 1
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert (errors, seen, inside) == ([], [1], [0])


def test_of_many_processes_one_is_inside(dataset: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, dataset, str(tmp_path / "busy")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()


def test_the_lock_of_a_killed_process_of_this_machine_falls_at_once(dataset: str) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, dataset], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    try:
        assert owner.stdout.readline() == b"held\n"
        with pytest.raises(PointloomError, match=f"process {owner.pid} on "), held(dataset):
            pass
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait(10)
        owner.stdout.close()
    began = time.monotonic()
    with held(dataset):
        assert time.monotonic() - began < 30
    assert claims(dataset) == []


def test_the_lock_of_another_machine_falls_when_it_is_not_renewed(
    dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forge(dataset, elsewhere())
    with pytest.raises(PointloomError, match="on other-host"), held(dataset):
        pass
    monkeypatch.setattr(lock, "_STALE_SECONDS", 2.0)
    began = time.monotonic()
    with held(dataset, wait_s=20):
        assert time.monotonic() - began < 10


def test_a_lock_that_is_renewed_stands(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # S3 tells times in whole seconds, so a claim renewed now may look two seconds old.
    monkeypatch.setattr(lock, "_STALE_SECONDS", 3.0)
    monkeypatch.setattr(lock, "_BEAT_SECONDS", 0.3)
    with held(dataset) as mine:
        with pytest.raises(PointloomError, match="did not end within"), held(dataset, wait_s=5):
            pass
        mine.check()


def test_a_pid_that_was_given_to_another_process_is_not_the_owner(dataset: str) -> None:
    forge(dataset, replace(lock._myself(), created=12345.0))
    with held(dataset) as mine:
        mine.check()
        claims = files.list_files(files.join(dataset, lock.FOLDER))
        assert [claim.name for claim in claims] == [files.name_of(mine.claim)]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[]"])
def test_a_claim_that_cannot_be_read_stands_until_it_is_old(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / lock.FOLDER / "0.json"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(PointloomError, match="cannot be read"), held(str(tmp_path)):
        pass
    os.utime(path, (time.time() - 61,) * 2)
    with held(str(tmp_path)):
        assert not path.exists()


def test_a_lock_that_was_lost_is_said_and_not_taken_back(
    dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_BEAT_SECONDS", 0.1)
    with held(dataset) as mine:
        files.delete(mine.claim)
        time.sleep(0.5)
        with pytest.raises(PointloomError) as error:
            mine.check()
        assert_one_sentence(error, "was lost")


def test_the_dataset_may_be_missing_but_not_be_a_file(tmp_path: Path) -> None:
    with held(str(tmp_path / "a" / "b")):
        pass
    (tmp_path / "file").write_text("x")
    with pytest.raises(PointloomError) as error, held(str(tmp_path / "file")):
        pass
    assert_one_sentence(error, "file")


def test_what_a_killed_writer_left_is_removed_once_nobody_writes_to_it(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pointcloud.storage.files import staged\n"
        "with staged(sys.argv[1]) as part: part.write_bytes(b'half'); os.kill(os.getpid(), 9)"
    )
    final = tmp_path / "tiles" / "a.laz"
    killed = subprocess.run([sys.executable, "-c", script, str(final)], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    (left,) = (tmp_path / "tiles").iterdir()
    assert left.name.endswith(".part")
    kept = tmp_path / ".mine.part"
    kept.touch()
    with lock.held(str(tmp_path)):
        assert left.exists(), "somebody may be writing"
    for path in (left, kept):
        os.utime(path, (0, 0))
    with lock.held(str(tmp_path)):
        assert not left.exists()
    assert kept.exists(), "no name of ours"
    assert not final.exists()

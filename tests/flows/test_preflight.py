"""What a machine does not give is one sentence before anything starts, and the remedy."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path

import pytest

from flows.preflight import any_home, check_caches, check_proxies, check_server, writable_prefect_home
from pointcloud.errors import PointloomError
from tests.support.clouds import assert_one_sentence, write_las


def test_a_prefect_home_that_can_be_written_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "new" / "home"))
    with writable_prefect_home():
        assert os.environ["PREFECT_HOME"] == str(tmp_path / "new" / "home")
    assert not list((tmp_path / "new" / "home").iterdir())
    assert capsys.readouterr().err == ""


def test_a_prefect_home_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "file" / "home"))
    with (
        pytest.raises(PointloomError, match=r"cannot be written .* set PREFECT_HOME to") as error,
        writable_prefect_home(),
    ):
        pass
    assert_one_sentence(error, str(tmp_path / "file" / "home"))


def test_without_a_home_folder_prefect_gets_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    with writable_prefect_home():
        folder = Path(os.environ["PREFECT_HOME"])
        (folder / "profiles.toml").touch()
    assert not folder.exists()
    assert "PREFECT_HOME" not in os.environ
    assert "set PREFECT_HOME to keep them" in capsys.readouterr().err


def test_a_user_without_any_home_folder_gets_a_temporary_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody(_: int) -> None:
        raise KeyError

    for name in ("HOME", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with any_home(), writable_prefect_home():
        assert Path(os.environ["HOME"]).is_dir()
    assert "HOME" not in os.environ
    assert "has no home folder" in capsys.readouterr().err
    monkeypatch.undo()
    with any_home():
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"])
def test_a_cache_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    check_caches()
    monkeypatch.setenv(name, str(tmp_path / "new" / "cache"))
    check_caches()
    (tmp_path / "file").touch()
    monkeypatch.setenv(name, str(tmp_path / "file" / "cache"))
    with pytest.raises(PointloomError, match=rf"cannot be written .* set {name} to") as error:
        check_caches()
    assert_one_sentence(error, str(tmp_path / "file" / "cache"))


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(
            {"/api/health": 200, "/cloud/health": 401, "/broken/health": 502, "/page/health": 200}.get(
                self.path, 404
            )
        )
        if self.path.startswith("/page"):
            self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Answers) as answers:
        threading.Thread(target=answers.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{answers.server_port}"
        answers.shutdown()


def test_a_server_that_answers_is_one_also_where_it_asks_who_we_are(server: str) -> None:
    check_server(f"{server}/api")
    check_server(f"{server}/api/")
    check_server(f"{server}/cloud")


def test_a_server_that_is_dead_or_none_is_said(server: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}/api"
        for url in (
            dead,
            f"{server}/elsewhere",
            f"{server}/broken",
            f"{server}/page",
            "http://no-such-host.invalid/api",
        ):
            with pytest.raises(PointloomError, match="no Prefect server answers at") as error:
                check_server(url)
            assert_one_sentence(error, url)
            assert "unset it for a server of the run's own" in str(error.value)
    for url in ("127.0.0.1:4200/api", "prefect", "http://", "http://[::1"):
        with pytest.raises(PointloomError, match="PREFECT_API_URL") as error:
            check_server(url)
        assert_one_sentence(error, url)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9"),
        ("https_proxy", "ftp://127.0.0.1:9"),
        ("HTTP_PROXY", "http://[::1"),
    ],
)
def test_a_proxy_that_no_request_can_go_through_is_one_sentence(
    name: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(each, raising=False)
        monkeypatch.delenv(each.upper(), raising=False)
    check_proxies()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    check_proxies()
    monkeypatch.delenv("http_proxy")
    monkeypatch.setenv(name, url)
    with pytest.raises(PointloomError, match="no request can go through the proxy that") as error:
        check_proxies()
    assert_one_sentence(error, name)


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The shortest flow, on an embedded server, in an environment without the test's own Prefect."""
    labelled, truth = folder / "labelled", folder / "truth"
    labelled.mkdir()
    truth.mkdir()
    write_las(labelled / "a.las", 30)
    write_las(truth / "a.las", 30)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.run(
        [sys.executable, "-m", "flows", "evaluate", "--labelled", str(labelled), "--truth", str(truth),
         "--out", str(folder / "out")],
        env={**kept, **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_a_dead_server_is_one_sentence_before_anything_starts(tmp_path: Path) -> None:
    done = run(tmp_path, PREFECT_HOME=str(tmp_path / "prefect"), PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no Prefect server answers at 'http://127.0.0.1:9/api'")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("PREFECT_LOGGING_LEVEL", "LOUD", "PREFECT_LOGGING_LEVEL: Input should be 'DEBUG', 'INFO'"),
        ("PREFECT_CLIENT_CUSTOM_HEADERS", "not json", 'field "custom_headers"'),
    ],
)
def test_a_setting_that_prefect_refuses_is_one_sentence(
    name: str, value: str, named: str, tmp_path: Path
) -> None:
    done = run(tmp_path, PREFECT_HOME=str(tmp_path / "prefect"), **{name: value})
    assert done.returncode == 2
    assert done.stderr.startswith("error: Prefect does not accept its settings (")
    assert named in done.stderr
    assert done.stderr.count("\n") == 1


class _Proxy(ThreadingHTTPServer):
    """A proxy that remembers what it was asked for and passes nothing on."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Refuses)
        self.asked: list[str] = []


class _Refuses(_Answers):
    def do_GET(self) -> None:
        assert isinstance(self.server, _Proxy)
        self.server.asked.append(self.requestline)
        self.send_error(502)

    do_POST = do_PUT = do_HEAD = do_CONNECT = do_GET


@pytest.mark.slow
@pytest.mark.parametrize("no_proxy", ["", "example.org"])
def test_a_flow_runs_behind_a_proxy_and_without_a_home_folder(tmp_path: Path, no_proxy: str) -> None:
    (tmp_path / "file").touch()
    with _Proxy() as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{proxy.server_port}"
        done = run(
            tmp_path,
            HOME=str(tmp_path / "file"),
            no_proxy=no_proxy,
            **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), url),
        )
        proxy.shutdown()
    assert done.returncode == 0, done.stderr
    assert proxy.asked == []
    assert (tmp_path / "out" / "report.html").exists()
    assert "Traceback" not in done.stderr

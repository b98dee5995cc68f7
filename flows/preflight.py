"""Checks of this machine before a flow starts; each failure is one sentence with the remedy."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from urllib.parse import urlsplit

from pointcloud.errors import PointloomError, one_line

_ANSWER_SECONDS = 10.0
_CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


class PrefectSettingsError(PointloomError):
    """Prefect does not accept a setting: a variable PREFECT_…, or one of its profile or prefect.toml."""


@contextmanager
def any_home() -> Iterator[None]:
    """A temporary home folder for a user that has none, as a container's that runs under a number without a name.

    Needed before Prefect is imported, which asks for it then.
    """
    try:
        Path.home()
    except RuntimeError:
        pass
    else:
        yield
        return
    with _temporary_folder("HOME") as folder:
        print(
            f"note: this user has no home folder: {folder!r} is used until the run ends; set HOME, or "
            "PREFECT_HOME to keep Prefect's records.",
            file=sys.stderr,
        )
        yield


@contextmanager
def writable_prefect_home() -> Iterator[None]:
    """Prefect's folder: PREFECT_HOME, or ~/.prefect, or a temporary one where the home folder cannot be written.

    Needed before Prefect is imported, which reads its settings then.

    Raises:
        PointloomError: PREFECT_HOME names a folder that cannot be written.
    """
    named = os.environ.get("PREFECT_HOME")
    home = Path(named or "~/.prefect").expanduser()
    reason = _why_not_writable(home)
    if reason and named:
        raise PointloomError(
            f"PREFECT_HOME {named!r} cannot be written ({reason}); set PREFECT_HOME to a folder that can."
        )
    if not reason:
        yield
        return
    with _temporary_folder("PREFECT_HOME") as folder:
        print(
            f"note: {str(home)!r} cannot be written ({reason}): Prefect's records of this run are kept in {folder!r} "
            "until it ends; set PREFECT_HOME to keep them.",
            file=sys.stderr,
        )
        yield


@contextmanager
def _temporary_folder(variable: str) -> Iterator[str]:
    """A folder that an environment variable names until the context ends."""
    with tempfile.TemporaryDirectory(prefix="pointloom-home-", ignore_cleanup_errors=True) as folder:
        os.environ[variable] = folder
        try:
            yield folder
        finally:
            del os.environ[variable]


def check_caches() -> None:
    """Look whether torch can write the folders for caches that the environment names: it makes them on import.

    Raises:
        PointloomError: one that cannot be written.
    """
    for name in _CACHES:
        folder = os.environ.get(name)
        if folder and (reason := _why_not_writable(Path(folder))):
            raise PointloomError(
                f"{name} {folder!r} cannot be written ({reason}); set {name} to a folder that can, or unset it."
            )


def check_proxies() -> None:
    """Look whether requests can go through the proxies that the environment names.

    Raises:
        PointloomError: a proxy that httpx, which Prefect speaks through, does not know or lacks a package for.
    """
    named = {name: url for low in _PROXIES for name in (low, low.upper()) if (url := os.environ.get(name))}
    if not named:
        return
    import httpx

    try:
        httpx.Client().close()
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        names = ", ".join(sorted(named))
        raise PointloomError(
            f"no request can go through the proxy that {names} names ({one_line(error)}); correct or unset it."
        ) from error


def check_prefect_settings() -> None:
    """Import Prefect, which reads its settings then.

    Raises:
        PrefectSettingsError: it does not accept one of them.
    """
    messages = io.StringIO()
    try:
        # It prints an error of its settings and goes on; the same error ends the next import.
        with redirect_stderr(messages):
            import prefect
        import prefect.main  # noqa: F401
    except ImportError:
        raise
    except Exception as error:  # of pydantic, of the readers of TOML and YAML, and Prefect's own
        raise PrefectSettingsError(
            f"Prefect does not accept its settings ({_refused_settings(error)}); correct or unset them where they are "
            "set: a variable PREFECT_…, profiles.toml in Prefect's folder, or prefect.toml."
        ) from error
    print(messages.getvalue(), end="", file=sys.stderr)


def _refused_settings(error: Exception) -> str:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return one_line(error).rstrip(".")
    refused = [fault for fault in error.errors() if fault["type"] != "default_factory_not_called"]
    return "; ".join(
        f"{_setting(error.title, fault['loc'], fault['input'])}: {fault['msg']}" for fault in refused
    )


def _setting(group: str, place: tuple[int | str, ...], value: object) -> str:
    """The variable that holds a value, or the setting's place in Prefect's model where none does."""
    names = [name for name in os.environ if name.startswith("PREFECT_") and os.environ[name] == value]
    return " or ".join(names) or ".".join([group, *map(str, place)])


def _why_not_writable(folder: Path) -> str:
    """Why no file can be written into a folder, which is made if need be; empty where one can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"1")
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def check_server(api_url: str) -> None:
    """Check that the Prefect server that runs are reported to answers.

    Any answer is one, also that of a server which asks who we are.

    Raises:
        PointloomError: nothing answers at the URL, or something other than a Prefect server.
    """
    import httpx  # imports Prefect, which `inspect` does not need

    advice = "start that server, correct PREFECT_API_URL, or unset it for a server of the run's own."
    if not _is_web_address(api_url):
        raise PointloomError(
            f"PREFECT_API_URL {api_url!r} is not a URL like http://127.0.0.1:4200/api; {advice}"
        )
    try:
        answer = httpx.get(f"{api_url.rstrip('/')}/health", timeout=_ANSWER_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise PointloomError(f"no Prefect server answers at {api_url!r} ({reason}); {advice}") from error
    status = answer.status_code
    if status == 404 or status >= 500:
        raise PointloomError(f"no Prefect server answers at {api_url!r} (HTTP status {status}); {advice}")
    if status == 200 and answer.headers.get("content-type", "").startswith("text/html"):
        raise PointloomError(f"no Prefect server answers at {api_url!r}, but a web page does; {advice}")


def _is_web_address(url: str) -> bool:
    try:
        address = urlsplit(url)
    except ValueError:  # such as brackets that do not close
        return False
    return address.scheme in ("http", "https") and bool(address.hostname)

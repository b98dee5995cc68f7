"""Flows in processes of their own, to be killed, and a timeline of what happens to them (`pytest -s` shows it)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from prefect.settings import PREFECT_API_URL
from pydantic import BaseModel

LIMIT_S = 240


class FlowRun:
    """`python -m flows NAME`; what is said of it is printed with the seconds since its start.

    With `embedded` on a Prefect server of its own, as where PREFECT_API_URL names none.
    """

    def __init__(self, name: str, parameters: BaseModel, folder: Path, embedded: bool = False) -> None:
        prefect = {"PREFECT_HOME": str(folder)} if embedded else {"PREFECT_API_URL": PREFECT_API_URL.value()}
        file = folder / "parameters.json"
        file.write_text(parameters.model_dump_json())
        self.began = time.monotonic()
        self.log = (folder / "log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows", name, "--parameters", str(file)],
            env={**os.environ, **prefect},
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.say("the flow starts")

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {what}", flush=True)

    def find(self, words: str) -> psutil.Process:
        """One of the flow's processes, by what its command line says."""
        found: list[psutil.Process] = []

        def look() -> bool:
            found.clear()
            for process in psutil.Process(self.process.pid).children(recursive=True):
                try:
                    if words in " ".join(process.cmdline()):
                        found.append(process)
                except psutil.Error:  # it ended meanwhile
                    continue
            return bool(found)

        self.until(look)
        return found[0]

    def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            assert self.process.poll() is None, "the flow ended too early"
            assert time.monotonic() - self.began < LIMIT_S
            time.sleep(0.1)

    def ends(self) -> int:
        """The exit status."""
        code = self.process.wait(LIMIT_S)
        self.say(f"the flow ends with exit status {code}")
        return code

    def terminate(self, group: bool = False) -> tuple[int, list[psutil.Process]]:
        """Ask the driver to end, or its whole group, as Slurm does: the exit status, and what of them lives on."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        if group:
            os.killpg(self.process.pid, signal.SIGTERM)
        else:
            self.process.terminate()
        return self.ends(), psutil.wait_procs(children, timeout=30)[1]

    def kill(self) -> None:
        """End driver, Ray and its workers at once, where they still run."""
        if self.process.poll() is None:
            children = psutil.Process(self.process.pid).children(recursive=True)
            for process in [psutil.Process(self.process.pid), *children]:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            self.process.wait(30)
            psutil.wait_procs(children, timeout=30)

    def close(self) -> None:
        self.kill()
        self.log.close()

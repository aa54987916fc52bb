"""Builds run by child processes, one at a time, since each measures what models cost on this machine.

What a build reports is kept on disk under its name, so it is asked for once. A child ends with this process; the next
one goes on after the last step that was finished.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pydantic

from operators.api.builder import Progress
from operators.api.plan import Build, BuildObserved, BuildState
from operators.api.status import BuildReport
from operators.router import daemon
from serving.contract import Exit

_RETRY_S = (2.0, 120.0)
"""First and longest wait before a build that found no room or no toolchain is tried again."""
_LINE_BYTES = 2**22


class Building:
    """Builds below ``folder``/builds. ``changed`` is called whenever ``observed`` would say something else."""

    def __init__(
        self, folder: Path, python: str, environment: Mapping[str, str], changed: Callable[[Build], None]
    ) -> None:
        self._folder = folder / "builds"
        self._log = folder / "logs" / "build"
        self._python = python
        self._environment = environment
        self._changed = changed
        self._known: dict[Build, BuildObserved] = {}
        self._tasks: dict[Build, asyncio.Task[None]] = {}
        self._one_at_a_time = asyncio.Lock()

    def observed(self, build: Build) -> BuildObserved:
        """How far a build has come."""
        known = self._known.get(build)
        if known is None and (report := self._report(build)) is not None:
            known = self._known[build] = BuildObserved(BuildState.DONE, report=report)
        return known or BuildObserved(BuildState.RUNNING, "waiting for its turn")

    def want(self, builds: Iterable[Build]) -> None:
        """Make what is wanted and not made, and end what is no longer wanted."""
        wanted = set(builds)
        for build in self._tasks.keys() - wanted:
            self._tasks.pop(build).cancel()
        for build in self._known.keys() - wanted:
            del self._known[build]
        for build in wanted:
            if build not in self._tasks and self.observed(build).state is BuildState.RUNNING:
                self._tasks[build] = asyncio.create_task(self._keep(build))

    async def stop(self) -> None:
        """End what is under way."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, build: Build) -> None:
        failures = 0
        while True:
            async with self._one_at_a_time:
                result = await self._once(build)
            self._tell(build, result)
            if result.state is not BuildState.UNAVAILABLE:
                return
            await asyncio.sleep(min(_RETRY_S[1], _RETRY_S[0] * 2.0**failures))
            failures += 1

    async def _once(self, build: Build) -> BuildObserved:
        self._log.mkdir(parents=True, exist_ok=True)
        log = self._log / f"{build.name}.log"
        with log.open("wb") as errors:
            child = await asyncio.create_subprocess_exec(
                *(self._python, "-m", "serving", "build", "--spec", "-", "--store", str(self._folder)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=dict(self._environment),
                limit=_LINE_BYTES,
            )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(build.document.encode())
            child.stdin.close()
            async for line in child.stdout:
                message = json.loads(line)
                if "report" in message:
                    daemon.write(self._file(build), json.dumps(message["report"]))
                else:
                    progress = Progress.model_validate(message["progress"])
                    self._tell(build, BuildObserved(BuildState.RUNNING, str(progress)))
            code = await child.wait()
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        report = self._report(build)
        if code == Exit.OK and report is not None:
            return BuildObserved(BuildState.DONE, report=report)
        said = log.read_text(errors="replace").strip().splitlines()[-1:] or [f"the builder ended with code {code}"]
        state = BuildState.REFUSED if code in (Exit.REFUSED, Exit.FAILED, Exit.USAGE) else BuildState.UNAVAILABLE
        return BuildObserved(state, said[0].removeprefix("error: "))

    def _tell(self, build: Build, found: BuildObserved) -> None:
        if self._known.get(build) != found:
            self._known[build] = found
            self._changed(build)

    def _file(self, build: Build) -> Path:
        return self._folder / "reports" / f"{build.name}.json"

    def _report(self, build: Build) -> BuildReport | None:
        try:
            return BuildReport.model_validate_json(self._file(build).read_bytes())
        except (OSError, pydantic.ValidationError):
            return None  # not made yet, or by a version that told less: then it is made again

"""Builds made by Jobs: what is seen of them, and what is done about them.

A Job is made once and then left as it is, whatever a later version of this operator would make of the same build. What
came of it is kept on it; a Model that no longer wants it has it deleted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from operators.actuators.kubernetes import build_jobs, build_results, diagnosis
from operators.actuators.kubernetes.build_jobs import BUILD_LABEL
from operators.actuators.kubernetes.build_results import REFUSAL, SUMMARY
from operators.actuators.kubernetes.events import Events
from operators.actuators.kubernetes.progress import Progresses
from operators.actuators.kubernetes.resources import JOBS, Children
from operators.api import routes
from operators.api.builder import Builder
from operators.api.errors import Conflict, OperatorError
from operators.api.plan import Build, BuildObserved, Event, Key
from operators.runtime import errors
from operators.runtime.connection import Connection
from operators.runtime.resource import Object, key_of

STORES = ("s3",)
"""Schemes of artifact stores that pods write and read."""


@dataclasses.dataclass(frozen=True)
class Building:
    """Makes builds for Models with ``image``, whose results go to ``store``; empty: there is none."""

    connection: Connection
    children: Children
    progresses: Progresses
    image: str
    store: str
    builder: Builder
    events: Events

    @property
    def hindrance(self) -> str:
        """Why nothing can be built; empty where it can."""
        if not self.store:
            return (
                "it has to be made, and there is no artifact store for what is made: set `store` of Penstock's chart "
                "(key `store` of ConfigMap `penstock`), or make it with `penstock build` and name the result as source"
            )
        if self.store.partition("://")[0] not in STORES:
            known = " or ".join(f"{scheme}://BUCKET/PREFIX" for scheme in STORES)
            return f"it has to be made, and pods write no artifact store {self.store}: set one like {known}"
        return ""

    def observe(self, key: Key) -> Mapping[Build, BuildObserved]:
        """How far the builds of a Model are."""
        seen = {}
        for job in self._jobs(key):
            name = job["metadata"]["labels"][BUILD_LABEL]
            said = self.progresses.said(job["metadata"]["uid"])
            seen[Build(name, "")] = build_results.observed(job, self._pods(job), said)
        return seen

    async def act(self, key: Key, owner: Object, builds: Iterable[Build]) -> None:
        """Make Jobs that are missing, keep what came of those that ended, delete those that are not wanted.

        Raises:
            OperatorError: a Job is refused, or its name is taken.
        """
        wanted = {build_jobs.job_name(key, build): build for build in builds}
        for job in self._jobs(key):
            if key_of(job).name not in wanted:
                await self.connection.delete(JOBS, job)
        failures = []
        for name, build in wanted.items():
            live = self.children.jobs.get(key.namespace, name)
            try:
                if live is None:
                    await self._begin(key, build, owner)
                elif not _owned_by(live, owner["uid"]):
                    raise Conflict(f"Job {name} exists and belongs to somebody else; delete it or rename the Model")
                else:
                    await self._keep(key, live)
            except errors.ApiError as error:
                failures.append(diagnosis.refusal(error.message).message if error.status == 403 else str(error))
            except Conflict as error:
                failures.append(str(error))
        if failures:
            raise OperatorError("; ".join(failures))

    async def _begin(self, key: Key, build: Build, owner: Object) -> None:
        job = build_jobs.job(key, build, owner, self.builder, self.image, self.store)
        made = await self.connection.apply(JOBS, job)
        await self._tell(key, made, "BuildStarted", f"Job {key_of(made).name} makes the variants")

    async def _keep(self, key: Key, live: Object) -> None:
        """What came of a Job is written on it, once; one that came to nothing is cleared away by Kubernetes.

        A refusal is the word of one builder: another one is asked again.
        """
        annotations = live["metadata"].get("annotations") or {}
        found = build_results.outcome(live, self._pods(live))
        if REFUSAL in annotations and build_results.image(live) != self.image:
            await self.connection.delete(JOBS, live)
        elif found and not found.keys() & annotations.keys():
            change: Object = {"metadata": {"annotations": found}}
            if REFUSAL in found:
                # It would be tried again, to the same end.
                change["spec"] = {"suspend": True}
                await self.connection.merge(JOBS, live, change)
                await self._tell(key, live, "BuildRefused", found[REFUSAL], is_warning=True)
                return
            await self.connection.merge(JOBS, live, change)
            report = build_results.parsed(found[SUMMARY])
            if report is not None:
                await self._tell(key, live, "BuildDone", build_results.told(report))
        elif build_results.given_up(live, self._pods(live)) and "ttlSecondsAfterFinished" not in live["spec"]:
            change = {"spec": {"ttlSecondsAfterFinished": build_results.RETRY_S}}
            await self.connection.merge(JOBS, live, change)

    async def _tell(self, key: Key, job: Object, reason: str, note: str, *, is_warning: bool = False) -> None:
        """An Event on the Model."""
        metadata = job["metadata"]
        name = f"{metadata['name']}.{metadata['uid']}.{reason}"
        owner = metadata["ownerReferences"][0]["uid"]
        await self.events.tell(key, owner, Event(name, "Build", reason, note, is_warning))

    def _jobs(self, key: Key) -> Sequence[Object]:
        return self.children.jobs.list(key.namespace, routes.MANAGED_BY | {routes.MODEL_LABEL: key.name})

    def _pods(self, job: Object) -> Sequence[Object]:
        """The pods that a Job has made, whatever labels others carry."""
        metadata = job["metadata"]
        named = self.children.pods.list(metadata["namespace"], {BUILD_LABEL: metadata["labels"][BUILD_LABEL]})
        return [pod for pod in named if _owned_by(pod, metadata["uid"])]


def _owned_by(child: Object, uid: str) -> bool:
    return any(reference.get("uid") == uid for reference in child["metadata"].get("ownerReferences", []))

"""Observe, plan, act: the one loop both modes run, for one object at a time.

Nothing here remembers anything: what must be remembered stands in ``.status``, so an operator killed anywhere
goes on where it was.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
from collections.abc import Callable

from operators.actuators.base import Actuator
from operators.api.base import APIObject
from operators.api.endpoint import Endpoint
from operators.api.errors import Conflict, InvalidObject, OperatorError
from operators.api.model import Model
from operators.api.plan import Event, Key, Plan
from operators.api.runtime import ServingRuntime, ServingRuntimeSpec
from operators.api.status import EndpointStatus, ModelStatus
from operators.planning import endpoints, plan, rollout
from operators.store.base import Store

log = logging.getLogger(__name__)

Clock = Callable[[], datetime.datetime]
Tell = Callable[[Key, Event, ModelStatus | EndpointStatus], None]

CONFLICT_RETRY_S = 0.2
"""The object changed between reading it and writing its status: decide anew once the change has been seen."""


@dataclasses.dataclass(frozen=True)
class Reconciler:
    """Brings the world in line with one object; safe to call at any time, any number of times."""

    store: Store
    actuator: Actuator
    clock: Clock
    runtimes: dict[str, ServingRuntimeSpec]
    """Built-in engines by name; a ServingRuntime of the same name takes precedence."""
    tell: Tell | None = None
    """Told of every decision that is stored, maybe more than once; must not wait."""

    async def reconcile(self, key: Key) -> float | None:
        """One pass for ``key``. Gives the seconds after which to look again, or None."""
        decided = await self._plan(key)
        if decided is None:
            return None
        try:
            await self.actuator.act(key, decided)
        except OperatorError as error:
            if decided.status is not None:
                stored = await self.store.get(key)
                before = stored.status.conditions if isinstance(stored, (Model, Endpoint)) else ()
                failed = plan.not_done(decided.status, before, str(error), self.clock())
                await self._store(key, decided, failed)
            raise
        if decided.status is not None:
            try:
                await self._store(key, decided, decided.status)
            except Conflict:
                return CONFLICT_RETRY_S
        if decided.reason:
            log.info("plan key=%r decision=%r", str(key), decided.reason)
        return decided.look_again_s

    async def _store(self, key: Key, decided: Plan, status: ModelStatus | EndpointStatus) -> None:
        """Store ``status``, and tell of what is decided with it. After a conflict it is decided anew, and told then."""
        try:
            await self.store.update_status(key, status)
        except Conflict:
            raise
        except OperatorError:
            # It may have taken place all the same.
            self._told(key, decided, status)
            raise
        self._told(key, decided, status)

    def _told(self, key: Key, decided: Plan, status: ModelStatus | EndpointStatus) -> None:
        if self.tell is not None:
            for event in decided.events:
                self.tell(key, event, status)

    async def _plan(self, key: Key) -> Plan | None:
        try:
            object_ = await self.store.get(key)
        except InvalidObject as error:
            # What served before goes on serving: an object that cannot be read is no reason to remove anything.
            log.warning("invalid key=%r error=%r", str(key), str(error))
            return None
        seen = await self.actuator.observe(key)
        if object_ is None or object_.metadata.deletion_timestamp is not None:
            return Plan(reason="the object is gone" if seen.workloads else "")
        match object_:
            case Model():
                runtimes = dict(self.runtimes)
                for runtime in await self.store.list("ServingRuntime"):
                    if isinstance(runtime, ServingRuntime):
                        runtimes[runtime.metadata.name] = runtime.spec
                return plan.model(object_, runtimes, seen, self.clock(), await self._waits(object_))
            case Endpoint():
                models = await self.store.list("Model", key.namespace)
                return endpoints.plan(object_, [m for m in models if isinstance(m, Model)], seen, self.clock())
            case _:
                return None

    async def _waits(self, model: Model) -> str:
        """Which other Model's rollout that of ``model`` waits for."""
        if not rollout.is_stepped(model.spec):
            return ""
        named = await self.store.list("Endpoint", model.metadata.namespace)
        models = await self.store.list("Model", model.metadata.namespace)
        return endpoints.waits(
            model, [e for e in named if isinstance(e, Endpoint)], [m for m in models if isinstance(m, Model)]
        )


async def affected(key: Key, store: Store) -> list[Key]:
    """Keys to look at when the object ``key`` changed: itself, and the objects that name it, share its name
    or wait for it.
    """
    match key.kind:
        case "ServingRuntime":
            models = await store.list("Model")
            return [_key(m) for m in models if isinstance(m, Model) and m.spec.runtime == key.name]
        case "Model":
            found = [e for e in await store.list("Endpoint", key.namespace) if isinstance(e, Endpoint)]
            shared = [e for e in found if any(arm.model == key.name for arm in e.spec.arms)]
            shadowed = [e for e in found if any(shadow.model == key.name for shadow in e.spec.shadow)]
            naming = [_key(e) for e in found if e in shared or e in shadowed or e.metadata.name == key.name]
            beside = {arm.model for e in shared for arm in e.spec.arms} - {key.name}
            models = await store.list("Model", key.namespace) if beside else []
            waiting = [_key(m) for m in models if isinstance(m, Model) and m.metadata.name in beside and _waits(m)]
            return [key, *naming, *waiting]
        case _:
            return [key]


def _waits(model: Model) -> bool:
    """Whether its rollout may wait for that of another Model."""
    return model.status.rollout is not None and model.status.rollout.state == "Waiting"


def _key(object_: APIObject) -> Key:
    return Key(object_.kind, object_.metadata.namespace, object_.metadata.name)

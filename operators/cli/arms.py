"""An Endpoint's arms in words: the shares that they have, and what is known of them by an experiment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from operators.cli.client import Object


def experiment(endpoint: Object) -> Object:
    """What its status says of its experiment or bandit; empty where there is none."""
    found: Object = endpoint.get("status", {}).get("experiment") or {}
    return found


def verdict(endpoint: Object) -> str:
    """What is known by the outcomes that clients reported, in a sentence."""
    return str(experiment(endpoint).get("verdict", ""))


def weights(endpoint: Object) -> dict[str, float]:
    """Shares by arm in percent, as they are now."""
    moved = {arm["name"]: arm["weight"] / 100 for arm in experiment(endpoint).get("arms", ())}
    return {arm["name"]: moved.get(arm["name"], arm["weight"]) for arm in endpoint["spec"]["arms"]}


def rows(endpoint: Object) -> Iterator[Sequence[str]]:
    """Name, Model, share, outcomes, their mean, and what it is worth beside the first."""
    known: dict[str, Object] = {arm["name"]: arm for arm in experiment(endpoint).get("arms", ())}
    for arm in endpoint.get("spec", {}).get("arms", ()):
        of = known.get(arm["name"], {})
        yield (
            arm["name"],
            arm["model"],
            f"{weights(endpoint)[arm['name']]:g} %",
            f"{of['units']:,}" if of else "",
            f"{of['mean']:.4g}" if of.get("mean") is not None else "",
            effect(of) or of.get("out", ""),
        )


def effect(arm: Object) -> str:
    """By how much an arm's outcomes are above those of the first one, with the interval; empty where not known."""
    found = arm.get("effect")
    return f"{found['value']:+.3g} ({found['low']:+.3g} to {found['high']:+.3g})" if found else ""

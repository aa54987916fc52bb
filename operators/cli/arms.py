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


def shadows(endpoint: Object) -> Iterator[Sequence[str]]:
    """Model, share of the requests it gets copies of, how many copies it got, compared, agreed, and what is wrong."""
    percents = {shadow["model"]: shadow.get("percent", 100) for shadow in endpoint.get("spec", {}).get("shadow", ())}
    for of in endpoint.get("status", {}).get("shadows", ()):
        compared, agreed = of.get("compared", 0), of.get("agreed", 0)
        yield (
            of["model"],
            f"{percents[of['model']]} %" if of["model"] in percents else "",
            f"{of.get('copied', 0):,}",
            f"{compared:,}",
            f"{agreed:,} ({100 * agreed / compared:.4g} %)" if compared else f"{agreed:,}",
            of.get("message", ""),
        )


def differences(endpoint: Object) -> str:
    """Where the answers on which a shadow disagreed are to be read; empty where it did not."""
    found = endpoint.get("status", {}).get("shadows", ())
    if all(of.get("compared", 0) == of.get("agreed", 0) for of in found):
        return ""
    models = " or ".join(dict.fromkeys(arm["model"] for arm in endpoint["spec"]["arms"]))
    return (
        "Differences:\n"
        "  The last ones stand at /debug/shadow of the server that answered, with the id of the request:\n"
        "  `difference` says what differs between `ours`, which the client got, and `theirs`, the shadow's.\n"
        "  The server's port: `penstock logs MODEL` "
        f"({models}); in a cluster `kubectl port-forward` to its pod.\n"
    )

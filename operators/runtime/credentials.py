"""Where the cluster is and who we are there: a kubeconfig, or the service account of the pod.

Either is read again whenever the API server says 401, which covers rotated service-account tokens, token
files and exec plugins. Only the token is taken over then: a changed address or client certificate needs a
restart.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import yaml
from kubernetes.aio import config
from kubernetes.aio.client import Configuration

from operators.runtime.errors import BadConfiguration

# What the official loader raises over files that are absent, no YAML, or YAML of another shape.
_UNUSABLE = (config.ConfigException, OSError, ValueError, TypeError, AttributeError, yaml.YAMLError)


class Source(Protocol):
    """Something that can be asked again for the address of the cluster and the token to use."""

    async def configuration(self) -> Configuration:
        """As it is now.

        Raises:
            BadConfiguration: it cannot be read, or lacks something.
        """


@dataclasses.dataclass(frozen=True)
class Kubeconfig:
    """A kubeconfig file, or several joined by ``:``; ``context`` None is its current one."""

    path: str
    context: str | None = None

    async def configuration(self) -> Configuration:
        configuration = Configuration()
        try:
            await config.load_kube_config(  # type: ignore[no-untyped-call]
                self.path, self.context, configuration
            )
        except _UNUSABLE as error:
            raise BadConfiguration(f"kubeconfig {self.path}: {error}; name another") from error
        return configuration


@dataclasses.dataclass(frozen=True)
class InCluster:
    """The service account mounted into this pod."""

    async def configuration(self) -> Configuration:
        configuration = Configuration()
        try:
            config.load_incluster_config(  # type: ignore[no-untyped-call]
                configuration, try_refresh_token=False
            )
        except (config.ConfigException, OSError) as error:
            raise BadConfiguration(f"service account: {error}; outside a pod, name a kubeconfig") from error
        return configuration


def authorization(configuration: Configuration) -> str | None:
    """The header's value; None where a client certificate or nothing at all speaks for us."""
    token = configuration.api_key.get("BearerToken")
    # A token read from a file may end in a newline, which no header may hold.
    return str(token).strip() if token else None

"""The values of our charts as types, strict: a key that does not exist is an error, not a setting that does nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from operators.api.base import Name, Strict
from operators.api.builder import Builder
from operators.api.endpoint import EndpointSpec
from operators.api.model import ModelSpec
from operators.api.runtime import ServingRuntimeSpec

Port = Annotated[int, Field(ge=0, le=65535)]
NAME_OR_NONE = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$"
Free = dict[str, Any]
Amounts = dict[str, str | int]


class Image(Strict):
    repository: str
    """Name, after the registry."""
    tag: str = ""
    """Tag; the chart's appVersion when empty."""
    digest: Annotated[str, Field(pattern="^(sha256:[0-9a-f]{64})?$")] = ""
    """`sha256:…`; wins over the tag."""


class Images(Strict):
    registry: str = ""
    """Put before every image, such as `ghcr.io/example`."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When kubelets pull."""
    pull_secrets: tuple[str, ...] = ()
    """Names of Secrets of the release's namespace to pull with."""
    operator: Image = Image(repository="penstock-operator")
    """The operator."""
    router: Image = Image(repository="penstock-router")
    """HAProxy and its agent."""
    serve: Image = Image(repository="penstock-serve")
    """The model server: in model pods, in the router's catalog and in the cache."""
    builder: Image = Image(repository="penstock-builder")
    """What makes variants of models."""
    triton: Image = Image(repository="penstock-triton")
    """The runtime `triton`."""


class Resources(Strict):
    requests: Amounts = {}
    """What the scheduler reserves."""
    limits: Amounts = {}
    """What cannot be exceeded. No limit of cpu by default: it would throttle an idle machine, too."""


class Placement(Strict):
    node_selector: dict[str, str] = {}
    """Labels a node must have."""
    tolerations: tuple[Free, ...] = ()
    """Taints that are accepted."""
    affinity: Free = {}
    """Affinity, beside the spread over nodes and zones."""
    pod_annotations: dict[str, str] = {}
    """Annotations of the pods."""


class Webhook(Strict):
    url: Annotated[str, Field(pattern="^(https?://.+)?$")] = ""
    """Who is told of every step and end of a rollout, as CloudEvents 1.0 in JSON; empty: nobody."""
    token_secret: Annotated[str, Field(pattern=NAME_OR_NONE)] = ""
    """Secret of the release's namespace whose key `token` is sent as a bearer token; empty: none is."""


class Operator(Placement):
    replicas: Annotated[int, Field(ge=0)] = 2
    """Replicas; one leads, the others wait."""
    resources: Resources = Resources(requests={"cpu": "100m", "memory": "128Mi"}, limits={"memory": "512Mi"})
    """What each replica gets."""
    webhook: Webhook = Webhook()
    """Whom it tells of what it decides."""


class NodePorts(Strict):
    http: Port = 0
    """For REST; 0: Kubernetes chooses."""
    grpc: Port = 0
    """For gRPC; 0: Kubernetes chooses."""
    https: Port = 0
    """For TLS; 0: Kubernetes chooses."""


class Service(Strict):
    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """How clients reach the router."""
    annotations: dict[str, str] = {}
    """Annotations, such as those of a cloud's load balancer."""
    node_ports: NodePorts = NodePorts()
    """Ports on every node, for types NodePort and LoadBalancer."""
    load_balancer_source_ranges: tuple[str, ...] = ()
    """Networks that a load balancer lets in; all when empty."""


class IssuerRef(Strict):
    name: str = ""
    """Name of the issuer; empty: no Certificate is made."""
    kind: Literal["Issuer", "ClusterIssuer"] = "Issuer"
    """Issuer (of the release's namespace) or ClusterIssuer."""


class CertManager(Strict):
    issuer_ref: IssuerRef = IssuerRef()
    """Who signs."""
    dns_names: tuple[str, ...] = ()
    """Names the certificate is for, beside those of the Service."""


class Tls(Strict):
    secret_name: str = ""
    """A Secret of type kubernetes.io/tls; with one the router speaks TLS on port 443, REST and gRPC."""
    cert_manager: CertManager = CertManager()
    """Let cert-manager write that Secret (`penstock-router-tls` when secretName is empty)."""


class Catalog(Strict):
    resources: Resources = Resources(requests={"cpu": "50m", "memory": "128Mi"}, limits={"memory": "512Mi"})
    """What it gets in each replica of the router."""


class Router(Placement):
    replicas: Annotated[int, Field(ge=0)] = 2
    """Replicas; each serves every route."""
    url: str = ""
    """Where clients reach the router: models' URLs begin with it. The Service's name in the cluster when empty."""
    service: Service = Service()
    """The Service in front of the replicas."""
    tls: Tls = Tls()
    """TLS for clients."""
    resources: Resources = Resources(requests={"cpu": "250m", "memory": "256Mi"}, limits={"memory": "1Gi"})
    """What each replica gets."""
    catalog: Catalog = Catalog()
    """The container beside the router that answers for models without a server."""


class Cache(Placement):
    enabled: bool = False
    """Keep what was fetched on each node for the next pod there that needs it, also when its source is gone. A digest
    is then all it takes to read an artifact that a node has: see serving/DESIGN.md. Switching it rolls out every Model.
    """
    max_gib: Annotated[int, Field(alias="maxGiB", ge=1)] = 20
    """The most it keeps on a node, in GiB of the disk for emptyDirs."""
    resources: Resources = Resources(requests={"cpu": "50m", "memory": "96Mi"}, limits={"memory": "256Mi"})
    """What it gets on each node."""


class Gateway(Strict):
    namespace: Annotated[str, Field(pattern=NAME_OR_NONE, max_length=63)] = ""
    """Namespace of the Gateway."""
    name: Annotated[str, Field(pattern=NAME_OR_NONE, max_length=63)] = ""
    """Name of a Gateway (Gateway API) that carries the traffic; the router is then left out. Empty: the router does."""


class KServe(Strict):
    serving_runtime: bool = False
    """Our server as a runtime of KServe, which must be there: a plain InferenceService of format onnx runs by it. With
    `watchNamespace` it is a ServingRuntime of that namespace, otherwise a ClusterServingRuntime.
    """


class NetworkPolicies(Strict):
    enabled: bool = True
    """Default deny for Penstock's own pods plus what they need, and for every Model: only the router reaches it.
    Switched off later, policies of Models stay until those go.
    """
    allow_namespaces: tuple[Name, ...] = ()
    """Namespaces whose pods may reach model pods, too: a Prometheus, a Gateway's data plane."""


class AdmissionPolicies(Strict):
    enabled: bool = True
    """Refuse sources on somebody's machine, and routes and endpoints by others than those who make them."""


class PriorityClass(Strict):
    create: bool = True
    """Make it; it is cluster-scoped."""
    name: str = "penstock"
    """Priority class of operator and router; empty: the cluster's default."""


class Budgets(Strict):
    enabled: bool = True
    """Evictions leave one replica of the operator and one of the router."""


class Values(Strict):
    """The operator and the router."""

    images: Images = Images()
    """Where container images come from."""
    watch_namespace: Annotated[str, Field(pattern=NAME_OR_NONE, max_length=63)] = ""
    """Namespaced mode: serve the Models of this namespace only, by Roles, without any cluster-scoped object (priority
    class and admission policies are left out). Empty: all namespaces.
    """
    store: str = ""
    """URI of the artifact store to which `penstock apply` uploads files and builds publish variants, such as
    `s3://models/penstock`. Empty: no variants are made.
    """
    builder: Builder = Builder()
    """What makes variants of models, in Jobs of their namespaces."""
    operator: Operator = Operator()
    """What decides."""
    router: Router = Router()
    """What clients talk to."""
    gateway: Gateway = Gateway()
    """The cluster's own way in, instead of the router."""
    cache: Cache = Cache()
    """A cache of artifacts on every node."""
    kserve: KServe = KServe()
    """What KServe, where it is, may do with our server. `runtime: kserve` of a Model needs nothing of this."""
    network_policies: NetworkPolicies = NetworkPolicies()
    """Who reaches whom; needs a network that enforces it."""
    admission_policies: AdmissionPolicies = AdmissionPolicies()
    """ValidatingAdmissionPolicies."""
    priority_class: PriorityClass = PriorityClass()
    """What is evicted last."""
    pod_disruption_budgets: Budgets = Budgets()
    """PodDisruptionBudgets."""
    extra_objects: tuple[Free, ...] = ()
    """Objects to install along, as they are."""
    global_: Annotated[Free, Field(alias="global")] = {}
    """Not used; Helm passes it to every chart."""


class CrdValues(Strict):
    """The kinds; there is nothing to choose."""

    global_: Annotated[Free, Field(alias="global")] = {}
    """Not used; Helm passes it to every chart."""


class ModelsValues(Strict):
    """Objects by name; each value is a spec, and `kubectl explain model.spec` explains it."""

    models: dict[Name, ModelSpec] = {}
    """Models of the release's namespace."""
    endpoints: dict[Name, EndpointSpec] = {}
    """Endpoints of the release's namespace."""
    serving_runtimes: dict[Name, ServingRuntimeSpec] = {}
    """ServingRuntimes; they are cluster-scoped."""
    global_: Annotated[Free, Field(alias="global")] = {}
    """Not used; Helm passes it to every chart."""


CHARTS: Mapping[str, type[Strict]] = {
    "penstock": Values,
    "penstock-crds": CrdValues,
    "penstock-models": ModelsValues,
}

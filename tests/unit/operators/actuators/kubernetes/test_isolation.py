import dataclasses

from operators.actuators.kubernetes import isolation, makers
from operators.api.plan import Fetch, Key, Workload
from operators.api.resources import Resources
from operators.api.runtime import Ports
from operators.planning import runtimes

KEY = Key("Model", "team", "digits")
RUNTIME = runtimes.builtin("penstock-serve:1", "python3")["onnxruntime"]
OURS = Workload("digits-1-a", "team", "digits", "1", "a", Fetch("s3://a", "sha256:b"), RUNTIME, 1, Resources())
THEIRS = dataclasses.replace(
    OURS, name="digits-2-a", runtime=RUNTIME.model_copy(update={"ports": Ports(http=8000, grpc=9000)})
)


def test_a_model_is_reached_by_the_router_and_by_the_namespaces_that_are_named_and_by_nobody_else() -> None:
    owner = makers.owner(KEY, "uid")
    labels = {"app.kubernetes.io/managed-by": "penstock", "penstock.dev/model": "digits"}
    assert isolation.network_policy(KEY, (OURS, THEIRS), "penstock-system", ("monitoring",), owner) == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "digits", "namespace": "team", "labels": labels, "ownerReferences": [owner]},
        "spec": {
            "podSelector": {"matchLabels": labels},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [
                        {
                            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "penstock-system"}},
                            "podSelector": {
                                "matchLabels": {
                                    "app.kubernetes.io/name": "penstock",
                                    "app.kubernetes.io/component": "router",
                                }
                            },
                        },
                        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}},
                    ],
                    "ports": [{"protocol": "TCP", "port": port} for port in (8000, 8080, 9000)],
                }
            ],
        },
    }

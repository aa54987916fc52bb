"""What runs on a node, and with which settings: the control plane, containerd, the kubelet, the proxy, and buckets."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.rig import s3
from tests.rig.control_plane import answers
from tests.rig.node import images, isolation, packages, policies
from tests.rig.node.layout import API_PORT, DNS_SERVICE, PODS, SERVICES, Node

Programs = Mapping[str, Path]
"""Where each program is, by its name."""


def start_control_plane(node: Node, programs: Programs, credentials: Path) -> None:
    """Start etcd, the API server, the controllers and the scheduler, and wait until the API server is ready."""
    etcd = "http://127.0.0.1:2379"
    isolation.start(
        node,
        "etcd",
        programs["etcd"],
        f"--data-dir={node.folder / 'etcd'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={etcd}",
        f"--advertise-client-urls={etcd}",
        "--log-level=warn",
    )
    audit = node.folder / "audit-policy.yaml"
    audit.write_text(_AUDIT)
    isolation.start(
        node,
        "kube-apiserver",
        programs["kube-apiserver"],
        f"--etcd-servers={etcd}",
        "--bind-address=0.0.0.0",
        f"--secure-port={API_PORT}",
        # The Service `kubernetes` refuses an address of loopback.
        f"--advertise-address={node.address}",
        f"--service-cluster-ip-range={SERVICES}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--token-auth-file={credentials / 'tokens.csv'}",
        f"--client-ca-file={credentials / 'ca.crt'}",
        # Without it the controllers log errors for ever.
        f"--requestheader-client-ca-file={credentials / 'ca.crt'}",
        "--requestheader-allowed-names=none",
        f"--tls-cert-file={credentials / 'apiserver.crt'}",
        f"--tls-private-key-file={credentials / 'apiserver.key'}",
        f"--kubelet-client-certificate={credentials / 'client.crt'}",
        f"--kubelet-client-key={credentials / 'client.key'}",
        f"--kubelet-certificate-authority={credentials / 'ca.crt'}",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={credentials / 'service-account.key'}",
        f"--service-account-signing-key-file={credentials / 'service-account.key'}",
        f"--audit-policy-file={audit}",
        f"--audit-log-path={node.audit_log}",
        "--audit-log-maxsize=200",
        "--audit-log-maxbackup=1",
        "--profiling=false",
    )
    ready = (f"{node.url}/readyz", (credentials / "admin.token").read_text(), credentials / "ca.crt")
    isolation.wait(node, "kube-apiserver", lambda: answers(*ready))
    isolation.start(
        node,
        "kube-controller-manager",
        programs["kube-controller-manager"],
        f"--kubeconfig={credentials / 'controller-manager.kubeconfig'}",
        "--use-service-account-credentials",
        f"--root-ca-file={credentials / 'ca.crt'}",
        f"--service-account-private-key-file={credentials / 'service-account.key'}",
        f"--cluster-signing-cert-file={credentials / 'ca.crt'}",
        f"--cluster-signing-key-file={credentials / 'ca.key'}",
        "--leader-elect=false",
        "--profiling=false",
    )
    isolation.start(
        node,
        "kube-scheduler",
        programs["kube-scheduler"],
        f"--kubeconfig={credentials / 'scheduler.kubeconfig'}",
        "--leader-elect=false",
        "--profiling=false",
    )


def start_containerd(node: Node) -> None:
    """Start containerd with a network for pods, and wait until it answers."""
    network = {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            # Each pod has a link of its own to the node, so that all its traffic is routed and policies see it.
            {
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(node.folder / "addresses"),
                    "ranges": [[{"subnet": PODS}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    (node.folder / "cni").mkdir()
    (node.folder / "cni" / "pods.conflist").write_text(json.dumps(network))
    config = node.folder / "containerd.toml"
    config.write_text(
        _CONTAINERD.format(
            folder=node.folder,
            socket=node.containerd_socket,
            pause=f"docker.io/library/{images.PAUSE}",
            plugins=packages.cni_folder(),
        )
    )
    isolation.start(node, "containerd", "containerd", f"--config={config}")
    isolation.wait(node, "containerd", node.containerd_socket.is_socket)


def start_kubelet(node: Node, programs: Programs, credentials: Path) -> None:
    """Start the kubelet, the proxy and what enforces policies; a node and a Service tell when they are ready."""
    config = node.folder / "kubelet.json"
    settings = {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(credentials / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.cgroup}",
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{node.containerd_socket}",
        # The disk is the machine's: its being nearly full is not the node's business.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "podLogsDir": str(node.folder / "pod-logs"),
        "resolvConf": "/dev/null",
        # How soon a pod sees a changed Secret; kubelets in use take a minute.
        "syncFrequency": "5s",
        "serializeImagePulls": False,
        "tlsCertFile": str(credentials / "kubelet.crt"),
        "tlsPrivateKeyFile": str(credentials / "kubelet.key"),
        "volumePluginDir": str(node.folder / "volume-plugins"),
    }
    config.write_text(json.dumps(settings))
    isolation.start(
        node,
        "kubelet",
        programs["kubelet"],
        f"--config={config}",
        f"--kubeconfig={credentials / 'kubelet.kubeconfig'}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
        f"--root-dir={node.folder / 'kubelet'}",
    )
    isolation.start(
        node,
        "kube-proxy",
        programs["kube-proxy"],
        f"--kubeconfig={credentials / 'proxy.kubeconfig'}",
        f"--hostname-override={node.name}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={PODS}",
        f"--nodeport-addresses=127.0.0.0/8,{node.address}/32",
        # What it would set is the machine's.
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    )
    local, token = f"https://127.0.0.1:{API_PORT}", credentials / "policies.token"
    isolation.start(node, "policies", sys.executable, "-u", policies.__file__, local, token, credentials / "ca.crt")


def start_buckets(node: Node, programs: Programs) -> None:
    """Start an S3 server, where models can be put for pods to fetch."""
    server = node.buckets
    isolation.start(node, "versitygw", *s3.prepare(programs["versitygw"], server))
    node.bucket_keys.write_text("".join(f"{name}={value}\n" for name, value in server.environment.items()))


def dns(node: Node) -> str:
    """The cluster's DNS, as the objects that ``kubectl apply`` takes."""
    meta = {"namespace": "kube-system", "name": "coredns"}
    labels = {"k8s-app": "kube-dns"}
    watched = {"": ["endpoints", "services", "pods", "namespaces"], "discovery.k8s.io": ["endpointslices"]}
    rules = [{"apiGroups": [group], "resources": what, "verbs": ["list", "watch"]} for group, what in watched.items()]
    container = {
        "name": "coredns",
        "image": images.DNS,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [{"containerPort": 1053, "protocol": protocol} for protocol in ("UDP", "TCP")],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
    }
    pod = {
        "serviceAccountName": "coredns",
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "coredns"}
    ports = [{"name": p.lower(), "port": 53, "targetPort": 1053, "protocol": p} for p in ("UDP", "TCP")]
    rbac = "rbac.authorization.k8s.io/v1"
    items = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": "coredns"}, "rules": rules},
        {
            "apiVersion": rbac,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "coredns"},
            "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", **meta}],
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"Corefile": _COREFILE}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {**meta, "labels": labels},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {**meta, "name": "kube-dns", "labels": labels},
            "spec": {"clusterIP": DNS_SERVICE, "selector": labels, "ports": ports},
        },
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


_COREFILE = """\
.:1053 {
    errors
    ready
    kubernetes cluster.local in-addr.arpa {
        pods insecure
        ttl 5
    }
    cache 5
}
"""

_AUDIT = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
"""

_CONTAINERD = """\
version = 2
root = "{folder}/containerd"
state = "{folder}/containerd-state"
oom_score = 0

[grpc]
  address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{plugins}"
  conf_dir = "{folder}/cni"
"""

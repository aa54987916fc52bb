"""InferenceServices as they are written in real life, and what is made and said of each."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from operators.api.kinds import parse
from operators.cli import inference_services
from operators.cli.main import app

Object = dict[str, Any]
URI = "s3://models/digits.onnx"
DIGEST = f"spec.source.digest: a cluster wants it; `penstock fetch --uri {URI} --to DIR` prints it"
SOURCE = {"source": {"uri": URI}}


def isvc(predictor: Object, **spec: Any) -> Object:
    kind = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": "reader"}}
    return {**kind, "spec": {"predictor": predictor, **spec}}


def onnx(**fields: Any) -> Object:
    return {"model": {"modelFormat": {"name": "onnx"}, "storageUri": URI, **fields}}


CASES: dict[str, tuple[Object, Object | None, list[str]]] = {
    "onnx": (isvc(onnx()), SOURCE, [DIGEST]),
    "legacy onnx": (isvc({"onnx": {"storageUri": URI}}), SOURCE, [DIGEST]),
    "v2 by name": (isvc(onnx(protocolVersion="v2")), SOURCE, [DIGEST]),
    "triton": (
        isvc({"triton": {"storageUri": "s3://models/repository", "runtimeVersion": "23.10"}}),
        {"source": {"uri": "s3://models/repository"}, "runtime": "triton"},
        [
            DIGEST.replace(URI, "s3://models/repository"),
            "spec.predictor.triton.runtimeVersion: it has no counterpart",
        ],
    ),
    "sklearn in a google bucket": (
        isvc({"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "gs://kfserving-examples/models/iris"}}),
        {"source": {"uri": "gs://kfserving-examples/models/iris"}},
        [
            "spec.predictor.model: gs://kfserving-examples/models/iris: pods fetch no gs:// in this version; copy it "
            "to s3://, oci://, https:// or pvc://",
            "spec.predictor.model: format sklearn is not served as it is; save the model with skops (`skops.io.dump`), "
            "which a build turns into ONNX; pickles are never read",
        ],
    ),
    "a claim": (
        isvc(onnx(storageUri="pvc://store/digits")),
        {"source": {"uri": "pvc://store/digits"}},
        [DIGEST.replace(URI, "pvc://store/digits")],
    ),
    "an image": (
        isvc(onnx(storageUri="oci://registry.example/digits:1")),
        {"source": {"uri": "oci://registry.example/digits:1"}},
        [
            "spec.predictor.model: oci://registry.example/digits:1: KServe means a container image with files in "
            "/models, a Model plain files: push them with `oras push`"
        ],
    ),
    "HDFS": (
        isvc(onnx(storageUri="hdfs://cluster/digits")),
        {"source": {"uri": "hdfs://cluster/digits"}},
        [
            "spec.predictor.model: hdfs://cluster/digits: HDFS is not read; put it into a bucket, a registry or a "
            "claim, and name it in spec.source.uri"
        ],
    ),
    "one of storageUris": (
        isvc({"model": {"modelFormat": {"name": "onnx"}}, "storageUris": [{"uri": URI, "mountPath": "/mnt/a"}]}),
        SOURCE,
        [DIGEST],
    ),
    "several storageUris": (
        isvc({"model": {"modelFormat": {"name": "onnx"}}, "storageUris": [{"uri": URI}, {"uri": "s3://models/more"}]}),
        None,
        [
            "spec.predictor.storageUris: a Model has one artifact, these are 2; put it into a bucket, a registry or a "
            "claim, and name it in spec.source.uri"
        ],
    ),
    "storage with its bucket": (
        isvc(
            {
                "model": {
                    "modelFormat": {"name": "onnx"},
                    "storage": {
                        "key": "minio",
                        "path": "digits.onnx",
                        "parameters": {"type": "s3", "bucket": "models"},
                    },
                }
            }
        ),
        SOURCE,
        [
            DIGEST,
            "spec.predictor.model.storage.key: put the bucket's keys into Secret penstock-storage of the namespace",
        ],
    ),
    "storage by a secret": (
        isvc({"model": {"modelFormat": {"name": "onnx"}, "storage": {"key": "minio", "path": "digits.onnx"}}}),
        None,
        [
            "spec.predictor.model.storage: the bucket is not known: path 'digits.onnx' of what Secret storage-config "
            "says under 'minio'; write its URI into spec.source.uri"
        ],
    ),
    "replicas, resources, canary, batcher, timeout": (
        isvc(
            {
                **onnx(resources={"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"nvidia.com/gpu": "1"}}),
                "minReplicas": 2,
                "maxReplicas": 2,
                "canaryTrafficPercent": 10,
                "batcher": {"maxBatchSize": 16, "maxLatency": 50},
                "timeout": 60,
            }
        ),
        {
            **SOURCE,
            "replicas": 2,
            "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
            "batching": {"maxSize": 16, "maxDelay": "50ms"},
            "limits": {"timeout": "60s"},
            "rollout": {"steps": [{"weight": 10, "for": "1h"}]},
        },
        [
            DIGEST,
            "spec.predictor.model.resources.limits.nvidia.com/gpu: 1: nothing but cpu and memory is asked for in this "
            "version",
            "spec.predictor.canaryTrafficPercent: 10: KServe stays there until somebody changes it; here the step ends "
            "after an hour (spec.rollout.steps), unless `penstock rollout pause` holds it",
        ],
    ),
    "to zero and back": (
        isvc({**onnx(), "minReplicas": 0, "maxReplicas": 5, "scaleTarget": 10}),
        SOURCE,
        [
            DIGEST,
            "spec.predictor.minReplicas: 0 scales to zero, which nothing does here; one replica stays",
            "spec.predictor.maxReplicas: nothing scales replicas in this version; set spec.replicas to what the peak "
            "needs",
            "spec.predictor.scaleTarget: it has no counterpart",
        ],
    ),
    "a transformer before it": (
        isvc(onnx(), transformer={"containers": [{"image": "resize:1"}]}),
        SOURCE,
        [DIGEST, "spec.transformer: Models have none; keep it as an application that asks the Model"],
    ),
    "where it runs and as whom": (
        isvc({**onnx(env=[{"name": "A", "value": "1"}]), "serviceAccountName": "s3", "nodeSelector": {"gpu": "a"}}),
        SOURCE,
        [
            DIGEST,
            "spec.predictor.model.env: it has no counterpart",
            "spec.predictor.serviceAccountName: put the bucket's keys into Secret penstock-storage of the namespace",
            "spec.predictor.nodeSelector: it has no counterpart",
        ],
    ),
    "a container of its own": (
        isvc({"containers": [{"name": "kserve-container", "image": "mine:1"}]}),
        None,
        [
            "spec.predictor.containers: what a container of its own loads is not known; apply a ServingRuntime with "
            "image mine:1, and a Model with the file that it is to load as source"
        ],
    ),
    "nothing": (isvc({}), None, ["spec.predictor has no model; write a Model with spec.source by hand"]),
}


@pytest.mark.parametrize(("found", "spec", "said"), CASES.values(), ids=CASES.keys())
def test_each_field_becomes_something_or_is_said_to_become_nothing(
    found: Object, spec: Object | None, said: list[str]
) -> None:
    before = copy.deepcopy(found)
    imported = inference_services.model(found)
    assert (imported.model and imported.model["spec"], list(imported.said)) == (spec, said)
    assert found == before
    if imported.model is not None and not imported.model["spec"]["source"]["uri"].startswith("hdfs"):
        parse(imported.model)


def test_labels_stay_and_annotations_of_kserve_are_named() -> None:
    found = isvc(onnx())
    found["metadata"] |= {
        "namespace": "team",
        "labels": {"team": "blue", "networking.kserve.io/visibility": "cluster-local"},
        "annotations": {
            "serving.kserve.io/deploymentMode": "Standard",
            "serving.kserve.io/enable-prometheus-scraping": "1",
        },
    }
    imported = inference_services.model(found)
    assert imported.model is not None
    assert imported.model["metadata"] == {"name": "reader", "namespace": "team", "labels": {"team": "blue"}}
    assert imported.said[1:] == ("annotation serving.kserve.io/enable-prometheus-scraping: it has no counterpart",)


def test_models_are_printed_and_what_became_none_is_an_error() -> None:
    given = [isvc(onnx()), isvc({}), {"kind": "Secret"}, isvc(onnx(storageUri="hdfs://cluster/digits"))]
    done = CliRunner().invoke(app, ["import", "inferenceservice", "-f", "-"], input=yaml.safe_dump_all(given))
    (made,) = yaml.safe_load_all(done.stdout)
    assert made["spec"] == SOURCE
    assert done.stderr.splitlines()[:2] == [
        f"reader: {DIGEST}",
        "reader: spec.predictor has no model; write a Model with spec.source by hand",
    ]
    assert "uri must be one of" in done.stderr
    assert str(done.exception) == "2 of 3 InferenceServices became no Model, as said above"

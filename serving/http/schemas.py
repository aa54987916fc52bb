"""The schemas of the OpenAPI document. Requests may have keys that are not listed: none is refused for that."""

from __future__ import annotations

from typing import Any

from serving.tensors import DTYPES

_TEXT = {"type": "string"}
_TRUTH = {"type": "boolean"}
_COUNT = {"type": "integer", "minimum": 0}
_TEXTS = {"type": "array", "items": _TEXT}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}, **more}


def _list(of: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": of, **more}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


_DATATYPE = {"type": "string", "enum": list(DTYPES)}
_SHAPE = _list({"type": "integer", "minimum": -1}, description="-1: any size")
_DURATION = _object({"count": _COUNT, "ns": _COUNT})
_TENSOR = _object({"name": _TEXT, "datatype": _DATATYPE, "shape": _SHAPE})
_CONFIGURED = _object({"name": _TEXT, "data_type": _TEXT, "dims": _SHAPE})
_DURATIONS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
_OF_BATCH = ("compute_input", "compute_infer", "compute_output")
_NULLABLE_TEXT = {"type": ["string", "null"]}

SCHEMAS: dict[str, Any] = {
    "Anything": {},
    "Binary": {"type": "string", "format": "binary", "description": "JSON, then the bytes of tensors in its order"},
    "Error": _object({"error": _TEXT}),
    "Alive": _object({"status": {"const": "alive"}}),
    "Live": _object({"live": _TRUTH}),
    "Ready": _object({"ready": _TRUTH, "live": _TRUTH}),
    "ModelReady": _object({"name": _TEXT, "ready": _TRUTH}),
    "ModelNames": _object({"models": _TEXTS}),
    "ServerMetadata": _object({"name": _TEXT, "version": _TEXT, "extensions": _TEXTS}),
    "ModelMetadata": _object(
        {
            "name": _TEXT,
            "versions": _TEXTS,
            "platform": _TEXT,
            "inputs": _list(_TENSOR),
            "outputs": _list(_TENSOR),
        }
    ),
    "ModelConfig": _object(
        {
            "name": _TEXT,
            "platform": _TEXT,
            "backend": _TEXT,
            "max_batch_size": _COUNT,
            "input": _list(_CONFIGURED),
            "output": _list(_CONFIGURED),
        },
        {
            "dynamic_batching": _object({"max_queue_delay_microseconds": _COUNT}),
            "model_transaction_policy": _object({"decoupled": _TRUTH}),
        },
    ),
    "Statistics": _object(
        {
            "model_stats": _list(
                _object(
                    {
                        "name": _TEXT,
                        "version": _TEXT,
                        "last_inference": _COUNT,
                        "inference_count": _COUNT,
                        "execution_count": _COUNT,
                        "inference_stats": _object(dict.fromkeys(_DURATIONS, _DURATION)),
                        "batch_stats": _list(_object({"batch_size": _COUNT} | dict.fromkeys(_OF_BATCH, _DURATION))),
                    }
                )
            )
        }
    ),
    "IndexRequest": {"type": "object", "properties": {"ready": {**_TRUTH, "description": "Only what is ready"}}},
    "Index": _list(_object({"name": _TEXT, "version": _TEXT, "state": _TEXT, "reason": _TEXT})),
    "LoadRequest": {
        "type": "object",
        "properties": {"parameters": {"description": "None are known; any is refused with 501"}},
    },
    "Parameters": {
        "type": ["object", "null"],
        "description": "Of a request: `binary_data_output`, `priority` (1 is the highest), `timeout` (microseconds); "
        "of an input: `binary_data_size`; of a requested output: `binary_data`, `classification` (number of classes)",
    },
    "Data": {"description": "Values row by row, nested or flat. FP16 and BF16 are written as binary only"},
    "InferRequest": _object(
        {
            "inputs": _list(
                _object(
                    {"name": _TEXT, "datatype": _DATATYPE, "shape": _list(_COUNT)},
                    {"data": _ref("Data"), "parameters": _ref("Parameters")},
                ),
                minItems=1,
            )
        },
        {
            "id": _NULLABLE_TEXT,
            "parameters": _ref("Parameters"),
            "outputs": {
                "type": ["array", "null"],
                "description": "Without any: all",
                "items": _object({"name": _TEXT}, {"parameters": _ref("Parameters")}),
            },
        },
    ),
    "InferResponse": _object(
        {
            "model_name": _TEXT,
            "model_version": _TEXT,
            "outputs": _list(
                _object(
                    {"name": _TEXT, "datatype": _DATATYPE, "shape": _list(_COUNT)},
                    {"data": _ref("Data"), "parameters": _ref("Parameters")},
                )
            ),
        },
        {"id": _TEXT},
    ),
    "Generate": {
        "type": "object",
        "description": "Inputs by name; every other key is a parameter, and so are those of `parameters`",
        "properties": {"id": _NULLABLE_TEXT, "parameters": _ref("Parameters")},
    },
    "Generated": _object(
        {"model_name": _TEXT, "model_version": _TEXT}, {"id": _TEXT}, description="And outputs by name"
    ),
    "Predict": {
        "type": "object",
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
        "properties": {
            "instances": {"type": "array", "minItems": 1, "description": "Rows: values, or objects by input name"},
            "inputs": {"description": "Columns: the values of the one input, or an object by input name"},
        },
    },
    "Predicted": {
        "type": "object",
        "oneOf": [{"required": ["predictions"]}, {"required": ["outputs"]}],
        "properties": {"predictions": {"type": "array"}, "outputs": {}},
    },
}

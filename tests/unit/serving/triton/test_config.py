from pathlib import Path

import msgspec
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from serving import settings
from serving.engines import artifact
from serving.errors import ArtifactRefused
from serving.settings import Settings
from serving.tensors import Signature, TensorSpec
from serving.triton import config
from serving.triton.config import Served

EXAMPLES = Path(__file__).parents[4] / "examples"


def served(path: Path, max_rows: int, said: str = "{}") -> Served:
    engine = artifact.load(path)
    engine.close()
    wanted = msgspec.convert(settings.parse(said, "the test"), Settings)
    return Served(path.parent.name, path, engine.signature, max_rows, wanted)


def text(wanted: Served) -> str:
    """All but the parameters."""
    made = config.made(wanted)
    assert (made.parameters["path"].string_value, set(made.parameters)) == (str(wanted.path), {"path", "settings"})
    made.ClearField("parameters")
    return text_format.MessageToString(made)


DIGITS = """\
name: "digits"
max_batch_size: 16
input {
  name: "image"
  data_type: TYPE_FP32
  dims: 1
  dims: 32
  dims: 32
}
output {
  name: "scores"
  data_type: TYPE_FP32
  dims: 10
  label_filename: "labels-0.txt"
}
instance_group {
  count: 1
  kind: KIND_CPU
}
dynamic_batching {
  max_queue_delay_microseconds: 2500
  default_queue_policy {
    default_timeout_microseconds: 5000000
    max_queue_size: 7
  }
}
backend: "python"
response_cache {
  enable: true
}
"""


def test_requests_for_digits_share_calls_as_its_settings_say() -> None:
    said = (
        '{"batching": {"maxSize": 16, "maxDelay": "2.5ms"}, "limits": {"timeout": "5s", "maxPending": 7}, '
        '"cache": true, "labels": {"scores": ["zero", "one"]}}'
    )

    assert text(served(EXAMPLES / "digits" / "model.onnx", 16, said)) == DIGITS


def test_detections_that_share_no_calls_keep_their_first_dimension_and_still_have_a_limit() -> None:
    found = config.made(served(EXAMPLES / "pose" / "model.onnx", 1))

    assert (found.max_batch_size, [(i.name, list(i.dims)) for i in found.input]) == (0, [("images", [-1, 3, 96, 96])])
    assert [(o.name, list(o.dims)) for o in found.output] == [("output0", [-1, -1, 189])]
    assert not found.HasField("response_cache")
    assert found.dynamic_batching == pb.ModelDynamicBatching(
        default_queue_policy=pb.ModelQueuePolicy(default_timeout_microseconds=30_000_000, max_queue_size=128)
    )


def test_what_the_backend_is_told_are_the_settings() -> None:
    wanted = served(EXAMPLES / "digits" / "model.onnx", 1, '{"threads": 2, "warmUp": [{"batchSizes": [1, 4]}]}')

    told = config.made(wanted).parameters["settings"].string_value

    assert msgspec.json.decode(told, type=Settings) == wanted.said


def spec(datatype: str = "FP32", shape: tuple[int, ...] = (-1, 4)) -> TensorSpec:
    return TensorSpec("x", datatype, shape)


def made(of: TensorSpec, said: str = "{}", max_rows: int = 1) -> Served:
    wanted = msgspec.convert(settings.parse(said, "the test"), Settings)
    return Served("m", Path("m.onnx"), Signature((spec(),), (of,)), max_rows, wanted)


def test_rows_of_single_numbers_are_no_batch_for_triton_would_show_them_as_columns() -> None:
    assert [made(spec(shape=shape), max_rows=8).has_batches for shape in ((-1, 4), (-1,))] == [True, False]


@pytest.mark.parametrize(
    ("of", "said", "message"),
    [
        (spec("BYTES"), "{}", "m.onnx has 'x' of datatype BYTES, which Triton's Python backend cannot pass on to "
         "NumPy 2; serve it with the runtime onnxruntime"),
        (spec(shape=()), "{}", "m.onnx has 'x' without any dimension, which Triton does not know; "
         "serve it with the runtime onnxruntime"),
        (spec(), '{"limits": {"memory": "1Gi", "maxPendingBytes": 5}}', "limits.memory and limits.maxPendingBytes of "
         "m.onnx cannot be kept by Triton; leave it out, or serve the model with the runtime onnxruntime"),
    ],
)  # fmt: skip
def test_what_triton_cannot_do_is_refused_by_name(of: TensorSpec, said: str, message: str) -> None:
    with pytest.raises(ArtifactRefused) as refused:
        made(of, said)

    assert str(refused.value) == message

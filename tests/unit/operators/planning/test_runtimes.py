import pytest

from operators.api.runtime import ServingRuntimeSpec
from operators.planning import runtimes


@pytest.mark.parametrize(("name", "image"), [("triton", "penstock-triton:1"), ("rayserve", None)])
def test_others_servers_run_by_one_command_on_this_machine_and_where_there_is_an_image_in_a_cluster(
    name: str, image: str | None
) -> None:
    here = runtimes.local("python3")[name]
    there = runtimes.cluster("penstock-serve:1", "penstock-triton:1", "python3")

    command = here.local
    assert command is not None
    assert command.command == ("python", "-m", "serving", name, "$(PENSTOCK_MODEL_DIR)")
    assert (here.image, here.grpc_over_http1) == (None, False)
    assert (there[name].image if name in there else None) == image
    assert there["triton"].args == ("triton", "$(PENSTOCK_MODEL_DIR)")


def test_what_comes_with_penstock_counts_by_name_whatever_its_image_and_a_users_by_content() -> None:
    for image in ("1", "2"):
        for name, runtime in runtimes.cluster(f"penstock-serve:{image}", f"penstock-triton:{image}", "python3").items():
            assert runtimes.counts_by_name(name, runtime)
    own = ServingRuntimeSpec(image="nvcr.io/nvidia/tritonserver:1", formats=("onnx",))
    assert not runtimes.counts_by_name("triton", own)

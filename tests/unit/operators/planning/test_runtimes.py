import pytest

from operators.planning import runtimes


@pytest.mark.parametrize("name", ["triton", "rayserve"])
def test_others_servers_run_on_this_machine_and_have_no_image_that_a_cluster_could_run(name: str) -> None:
    here, there = runtimes.local("python3"), runtimes.builtin("penstock-serve:1", "python3")

    ours = ["auto", "kserve", "litert", "onnxruntime", "openvino"]
    assert (sorted(here), sorted(there)) == ([*ours, "rayserve", "triton"], ours)
    assert (here[name].image, here[name].grpc_over_http1) == (None, False)
    command = here[name].local
    assert command is not None
    assert command.command == ("python", "-m", "serving", name, "$(PENSTOCK_MODEL_DIR)")

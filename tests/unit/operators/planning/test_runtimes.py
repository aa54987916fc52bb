from operators.planning import runtimes


def test_triton_runs_on_this_machine_and_has_no_image_that_a_cluster_could_run() -> None:
    here, there = runtimes.local("python3"), runtimes.builtin("penstock-serve:1", "python3")

    ours = ["auto", "kserve", "litert", "onnxruntime", "openvino"]
    assert (sorted(here), sorted(there)) == ([*ours, "triton"], ours)
    assert (here["triton"].image, here["triton"].grpc_over_http1) == (None, False)
    assert here["triton"].local is not None
    assert here["triton"].local.command == ("python", "-m", "serving", "triton", "$(PENSTOCK_MODEL_DIR)")

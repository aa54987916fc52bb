"""What an image leaves out of the packages that it installs."""

import sys
from pathlib import Path

from images import install

STUBS = "pytriton/tritonserver/python_backend_stubs"


def test_tests_stubs_and_services_of_others_are_left_out_and_code_stays(tmp_path: Path) -> None:
    kept = {
        "numpy/core.py",
        "numpy/testing/__init__.py",
        "onnxruntime/capi/state.so",
        "onnxruntime/transformers/onnx_utils.py",
        "botocore/data/s3/2006-03-01/service-2.json.gz",
        "botocore/data/endpoints.json",
        "requests/tests.py",
        "scipy/stats/_page_trend_test.py",
        "nvidia_pytriton.libs/libtritonserver-7.so",
        "pytriton/tritonserver/bin/tritonserver",
        f"{STUBS}/{sys.version_info.major}.{sys.version_info.minor}/triton_python_backend_stub",
    }
    dropped = {
        "numpy/core.pyi",
        "numpy/_core/tests/test_core.py",
        "onnxruntime/capi/libonnxruntime.so.1.32.0",
        "onnxruntime/transformers/models/bert.py",
        "botocore/data/ec2/2016-11-15/service-2.json.gz",
        "kubernetes/watch/watch_test.py",
        "nvidia_pytriton.libs/libpython3-4.13.so.1.0",
        "pytriton/triton.py",
        "pytriton/check/add_sub.py",
        f"{STUBS}/3.8/triton_python_backend_stub",
    }
    for name in kept | dropped:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    install.prune(tmp_path)
    assert {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()} == kept

"""Triton, whose binary the wheel ``nvidia-pytriton`` carries, with its python backend: the one that wheel has."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from benchmarks.peers import engine

_CONFIG = """
backend: "python"
max_batch_size: {batch}
input [{{name: "{input}" data_type: TYPE_FP32 dims: [{dims}]}}]
output [{{name: "{output}" data_type: TYPE_FP32 dims: [-1]}}]
parameters [{{key: "path" value: {{string_value: "{path}"}}}}]
instance_group [{{kind: KIND_CPU count: 1}}]
{batching}
"""

asked = engine.asked()
packages = Path(sysconfig.get_path("platlib"))
triton = packages / "pytriton" / "tritonserver"
scratch = Path.cwd()

version = scratch / "models" / asked.name / "1"
version.mkdir(parents=True)
shutil.copy(Path(__file__).with_name("model.py"), version)
config = _CONFIG.format(
    batch=asked.batch,
    input=engine.INPUT,
    dims=asked.dims,
    output=engine.OUTPUT,
    path=asked.path,
    batching="dynamic_batching {}" if asked.batch > 1 else "",
)
(version.parent / "config.pbtxt").write_text(config)

backend = scratch / "backends" / "python"
shutil.copytree(triton / "backends" / "python", backend)
python = f"{sys.version_info.major}.{sys.version_info.minor}"
shutil.copy(triton / "python_backend_stubs" / python / "triton_python_backend_stub", backend)

os.environ |= {
    "PYTHONHOME": sys.base_prefix,
    "PYTHONPATH": f"{packages}:{os.environ['PYTHONPATH']}",
    "LD_LIBRARY_PATH": f"{sysconfig.get_config_var('LIBDIR')}:{packages / 'nvidia_pytriton.libs'}",
}
command = [
    str(triton / "bin" / "tritonserver"),
    f"--model-repository={scratch / 'models'}",
    f"--backend-directory={backend.parent}",
    # Of two servers with one prefix the second takes the shared memory of the first.
    f"--backend-config=python,shm-region-prefix-name=penstock-{asked.http_port}",
    f"--http-port={asked.http_port}",
    f"--grpc-port={asked.grpc_port}",
    "--http-address=127.0.0.1",
    "--grpc-address=127.0.0.1",
    "--allow-metrics=false",
]
os.execv(command[0], command)

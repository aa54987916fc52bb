import subprocess
import sys


def test_the_messages_live_beside_those_of_other_clients_in_one_process() -> None:
    code = (
        "import serving.protocols.grpc as ours, tritonclient.grpc as theirs\n"
        "from google.protobuf import descriptor_pool\n"
        "request = ours.InferRequest(model_name='digits', id='7')\n"
        "copy = theirs.service_pb2.ModelInferRequest.FromString(request.SerializeToString())\n"
        "print(copy.model_name, copy.id, type(copy) is type(request))\n"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert (found.stdout, found.returncode) == ("digits 7 False\n", 0), found.stderr

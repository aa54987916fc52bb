"""What a confined process cannot do: in real ones, on the kernel at hand."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, os, pathlib, socket, sys
outside, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])
def told(what):
    try:
        what()
    except OSError as error:
        return type(error).__name__
    return "done"
def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(b"x", ("127.0.0.1", port))
print(json.dumps({
    "write below": told(lambda: pathlib.Path("out", "new").write_text("x")),
    "move below": told(lambda: os.rename("out/new", "moved")),
    "write /dev/null": told(lambda: pathlib.Path(os.devnull).write_text("x")),
    "read outside": told((outside / "kept").read_text),
    "write outside": told(lambda: (outside / "new").write_text("x")),
    "change outside": told(lambda: (outside / "kept").write_text("x")),
    "remove outside": told((outside / "kept").unlink),
    "make a folder outside": told((outside / "folder").mkdir),
    "connect": told(lambda: socket.create_connection(("127.0.0.1", port), 5)),
    "send a datagram": told(udp),
    "signal": told(lambda: os.kill(os.getppid(), 0)),
}))
"""


def test_a_confined_process_writes_in_its_folder_alone_and_reaches_no_network(tmp_path: Path) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    (folder / "out").mkdir(parents=True)
    outside.mkdir()
    (outside / "kept").write_text("kept")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        command = [sys.executable, "-m", "serving.variants.confined", str(folder)]
        told = [sys.executable, "-c", SCRIPT, str(outside), str(listening.getsockname()[1])]
        ended = subprocess.run(
            [*command, *told], capture_output=True, text=True, check=True, cwd=folder,
            env={"PYTHONPATH": str(Path(__file__).parents[4])},
        )  # fmt: skip
    found = json.loads(ended.stdout)
    may = ("write below", "move below", "write /dev/null", "read outside")
    assert {what for what, how in found.items() if how == "done"} == set(may)
    assert [one.name for one in outside.iterdir()] == ["kept"]
    assert (outside / "kept").read_text() == "kept"

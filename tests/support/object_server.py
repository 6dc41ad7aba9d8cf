"""A local S3 server: moto behind a lock, because its conditional writes are not atomic."""

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

BUCKET = "bucket"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


@contextmanager
def object_server() -> Iterator[str]:
    """Serve an empty bucket on loopback; yields the endpoint."""
    # Importing moto takes two seconds, and most processes of a test run start no server.
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    moto, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def one_at_a_time(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with lock:
            answer: Iterable[bytes] = moto(environ, start_response)
            return answer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        with urlopen(Request(f"{endpoint}/{BUCKET}", method="PUT")):
            yield endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""``diffsim-serve``: an HTTP API and a page for indexes on this machine."""

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from cli import options
from cli.index.worker_options import LOCAL
from cli.option_groups import EngineOptions, Speech, expand_groups
from cli.parsing import parse_bytes
from cli.search.opening import TOKEN_VARIABLE
from cli.terminal.printing import show
from cli.terminal.process import HELP, run, stopping, work_offline
from index_store.layout import SUFFIX
from index_store.locate import find_index
from index_store.remote.object_store import is_url
from retrieval.errors import DependencyError, UsageError
from retrieval.settings import EngineSettings, ReplicaSettings, ServerLimits, ServerSettings

EXTRA = "diffsim-retrieval[serve]"
_SERVER, _LIMITS, _REPLICAS = ServerSettings(), ServerLimits(), ReplicaSettings()

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None)

Places = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME=]PLACE...",
        show_default=False,
        help="Indexes to serve, under their own names or NAME. (default: $DIFFSIM_INDEX, else the only *.diffsim here)",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Where a server listens, who may ask it, and how much."""

    host: Annotated[str, typer.Option("--host", help="Listen on this address; others need a token.")] = _SERVER.host
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Listen on this port; 0 takes a free one.")] = (
        _SERVER.port
    )
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help=f"Require the token in this file. (default: that of ${TOKEN_VARIABLE})"),
    ] = None
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Answer requests that reach the server by this name."),
    ] = None
    allow_url: Annotated[
        list[str] | None,
        typer.Option("--allow-url", metavar="HOST", help="Let queries name images by URL on this host."),
    ] = None
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit", metavar="NAME=N", help=f"Change a limit: {', '.join(each.name for each in fields(_LIMITS))}."
        ),
    ] = None
    thumbnails: Annotated[
        str | None,
        typer.Option("--thumbnails", metavar="SIZE", help="Keep this much of thumbnails in memory. (default: 256MB)"),
    ] = None

    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            help=f"Search by replicas on a Ray cluster: an address, auto to find one, or {LOCAL} to start one here.",
        ),
    ] = None
    replicas: Annotated[
        int, typer.Option("--replicas", help="Divide the segments of each index among this many replicas.")
    ] = _REPLICAS.count
    replication: Annotated[
        int, typer.Option("--replication", help="Keep each segment on this many replicas; with 2 any one may be lost.")
    ] = _REPLICAS.replication
    replica_cpus: Annotated[float, typer.Option("--replica-cpus", help="Give each replica this many processors.")] = (
        _REPLICAS.cpus
    )
    replica_gpus: Annotated[
        float, typer.Option("--replica-gpus", help="Give each replica this many GPUs; 0.5 puts two on one.")
    ] = _REPLICAS.gpus
    near: Annotated[
        str | None,
        typer.Option(
            "--near",
            metavar="SIZE",
            help="Keep this much of an s3:// index's tensors on the disk of each replica. (default: 20GB)",
        ),
    ] = None

    def settings(self, engine: EngineSettings, environment: Mapping[str, str]) -> ServerSettings:
        """Return the library's settings; errors for a limit that is not known, and a missing token."""
        kept = _SERVER.thumbnails if self.thumbnails is None else parse_bytes(self.thumbnails)
        return ServerSettings(
            host=self.host,
            port=self.port,
            token=self._token(environment),
            hosts=tuple(self.allow_host or ()),
            url_hosts=tuple(self.allow_url or ()),
            engine=engine,
            limits=replace(_LIMITS, **dict(map(_limit, self.limit or []))),
            thumbnails=kept,
            replicas=self._replicas(),
        )

    def _replicas(self) -> ReplicaSettings | None:
        """Return the replicas that search; a UsageError for options of replicas without a cluster."""
        near = _REPLICAS.near_bytes if self.near is None else parse_bytes(self.near)
        address = None if self.ray == LOCAL else self.ray
        given = ReplicaSettings(
            self.replicas, self.replication, address, self.replica_cpus, self.replica_gpus, near_bytes=near
        )
        if self.ray is not None:
            return given
        if given != _REPLICAS:
            raise UsageError("--replicas, --replication, --replica-cpus, --replica-gpus and --near are of --ray")
        return None

    def _token(self, environment: Mapping[str, str]) -> str | None:
        if self.token_file is None:
            return environment.get(TOKEN_VARIABLE) or None
        try:
            return self.token_file.read_text("utf-8").strip()
        except (OSError, UnicodeError) as error:
            raise UsageError(f"the token can't be read from {self.token_file}") from error


def _limit(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    known = [each.name for each in fields(_LIMITS)]
    if name not in known or not number.isdecimal():
        raise UsageError(f"'{text}' is not a limit: write NAME=N, with a name of {', '.join(known)}")
    return name, int(number)


@app.command(context_settings=HELP)
@expand_groups
def serve(
    places: Places = None,
    *,
    how: ServeOptions,
    engine_options: EngineOptions,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    speech: Speech,
    version: options.Version = False,
) -> None:
    """Serve indexes: a page to search and browse them, and an HTTP API under /v1. Nothing is written to them."""
    speaker = speech.speaker()
    work_offline(engine_options.offline)
    engine = engine_options.settings(queries=2)
    if engine_options.max_cache is None:
        engine = replace(engine, max_cache=_SERVER.engine.max_cache)
    settings = how.settings(engine, os.environ)
    indexes = named_places(places or [], os.environ)
    try:
        from retrieval.serving.app import create_app
        from retrieval.serving.running import listen, run_server
    except ImportError as error:
        raise DependencyError(
            f"{error.name} is not installed", advice="install-package", package=f"'{EXTRA}'"
        ) from error
    with listen(settings.host, settings.port) as listening:
        application = create_app(indexes, settings)
        signal.signal(signal.SIGTERM, lambda *_: None)  # the server ends by itself, and the command with 0

        def tell(url: str) -> None:
            show(url)
            speaker.say(f"serving {', '.join(indexes)}; stop with Ctrl-C")
            if open_page:
                typer.launch(url)

        with stopping(lambda: "every accepted request was answered"):
            run_server(application, listening, settings, tell)


def named_places(given: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Return indexes by the names that they are served under.

    Raises:
        UsageError: two indexes with the same name.
        IndexNotFoundError: there is no such index.
    """
    found: dict[str, Any] = {}
    for text in given or [""]:
        name, _, place = text.rpartition("=")
        index = find_index(place or None, environment, Path.cwd())
        name = name or _name_of(index)
        if name in found:
            raise UsageError(f"two indexes would be served as '{name}': give one another name, like NAME={index}")
        found[name] = index
    return found


def _name_of(index: str | Path) -> str:
    last = str(index).rstrip("/").rpartition("/")[2] if is_url(str(index)) else Path(index).absolute().name
    return last.removesuffix(SUFFIX) or "index"


def main() -> NoReturn:
    """Run ``diffsim-serve``."""
    run(app)

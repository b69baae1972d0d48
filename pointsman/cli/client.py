"""The Admin API over one kept connection, with its errors turned into ours.

Built on the standard library's client: an HTTP framework would take longer to import than most commands take to run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

from pointsman.cli.errors import CliError, ExitCode, Fault, RefusedRequest, failure
from pointsman.cli.json_values import Json, JsonObject, as_object, as_objects

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

TIMEOUT_S = 60.0
"""How long an answer may take, beyond the time that a write is asked to wait for nodes."""

_READING = ("/config/diff", "/fleet/trace")  # they take a body, and change nothing

PAGE_SIZE = 1_000  # the most that the Admin API gives at once


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer. `body` is None when there is none; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: Json
    text: str

    @property
    def version(self) -> int | None:
        """The version that a write made, where the control plane says it."""
        value = self.headers.get("x-pointsman-version", "")
        return int(value) if value.isdecimal() else None


class AdminClient:
    """One control plane. Not for use by several threads."""

    def __init__(
        self,
        address: str,
        *,
        token: str = "",
        ca_file: str = "",
        read_only: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise failure(
                ExitCode.USAGE,
                f"'{address}' is not the address of a control plane",
                where="--addr or POINTSMAN_ADDR",
                remedy="give it as http://host:port",
            )
        self.address = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._base = parts.path.rstrip("/")
        self._timeout_s = timeout_s
        self._token = token
        self._read_only = read_only
        self._connection = _connection(parts.scheme, parts.hostname, port, timeout_s, ca_file)

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Answer:
        """Reads something."""
        return self.request("GET", path, query=query)

    def write_json(
        self,
        method: str,
        path: str,
        body: Json,
        *,
        wait_s: int | None = None,
        reason: str = "",
        preference: str = "",
        expected: str = "",
    ) -> Answer:
        """Writes a JSON body; `wait_s` asks the control plane to answer when the nodes run the new version.

        `preference` = a further one of the Prefer header, `rollout` for example.
        """
        return self.request(
            method,
            path,
            content=json.dumps(body).encode(),
            content_type="application/json",
            wait_s=wait_s,
            reason=reason,
            preference=preference,
            expected=expected,
        )

    def each(self, path: str, query: Mapping[str, str] | None = None) -> Iterator[JsonObject]:
        """All entities of a collection, page by page."""
        offset = ""
        while True:
            page = {**(query or {}), "size": str(PAGE_SIZE), **({"offset": offset} if offset else {})}
            body = as_object(self.get(path, page).body)
            yield from as_objects(body.get("data"))
            following = body.get("offset")
            if not isinstance(following, str) or following == offset:
                return
            offset = following

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        content: bytes | None = None,
        content_type: str = "",
        wait_s: int | None = None,
        reason: str = "",
        preference: str = "",
        expected: str = "",
    ) -> Answer:
        """Sends one request. Raises `RefusedRequest` for 4xx and 5xx and `CliError` when there is no answer.

        `expected` = the version that the configuration must still be at for a file or a rollback to be taken,
        alone or with its history.
        """
        if self._read_only and not _only_reads(method, path, query or {}):
            raise failure(
                ExitCode.DENIED,
                "this would write, and the context or --read-only says not to; nothing was sent",
                where=self.address,
                remedy="use another context, or leave --read-only out",
            )
        headers = {"Accept": "application/json, application/yaml"}
        if method != "GET" and (author := _author()):
            headers["X-Pointsman-Author"] = _header_text(author)
        if content is not None:
            headers["Content-Type"] = content_type
        preferences = [f"wait={wait_s}"] if wait_s is not None else []
        if preference:
            preferences.append(preference)
        if preferences:
            headers["Prefer"] = ", ".join(preferences)
        if expected:
            headers["If-Match"] = f'"version-{expected}"'
        if reason:
            headers["X-Pointsman-Reason"] = _header_text(reason)
        connection = self._connection
        connection.timeout = self._timeout_s + (wait_s or 0)
        if connection.sock is not None:
            connection.sock.settimeout(connection.timeout)
        try:
            with self._answering():
                response = self._sent(method, path, query, headers, content)
                raw = response.read()
        finally:
            if connection.sock is not None and connection.sock.fileno() < 0:
                connection.close()
        text = raw.decode("utf-8", "replace")
        body = _parsed(text, response.headers.get("Content-Type", ""))
        if response.status >= 400:
            raise refused(response.status, body, text, path=path)
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body, text)

    def lines(self, path: str, query: Mapping[str, str] | None = None, *, idle_s: float) -> Iterator[str]:
        """The lines of an answer that goes on, as they come; ends when it does, or was silent for `idle_s`.

        Raises as `request` where it does not even begin.
        """
        from http.client import HTTPException

        self._connection.timeout = idle_s
        with self._answering():
            response = self._sent("GET", path, query, {"Accept": "text/event-stream"})
            raw = response.read() if response.status >= 400 else b""
        if response.status >= 400:
            text = raw.decode("utf-8", "replace")
            raise refused(response.status, _parsed(text, response.headers.get("Content-Type", "")), text, path=path)
        try:
            for raw in response:
                yield raw.decode("utf-8", "replace").rstrip("\r\n")
        except (OSError, HTTPException):
            return
        finally:
            self._connection.close()

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def _sent(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str],
        content: bytes | None = None,
    ) -> HTTPResponse:
        """Sends a request as ours, with the token if there is one; its answer, of which the head was read."""
        ours = {**headers, "User-Agent": "pointsman-cli"}
        if self._token:
            ours["Authorization"] = f"Bearer {self._token}"
        target = self._base + path + (f"?{urlencode(query)}" if query else "")
        self._connection.request(method, target, body=content, headers=ours)
        return self._connection.getresponse()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turns what goes wrong on the way into CliError."""
        from http.client import HTTPException

        try:
            yield
        except TimeoutError as error:
            why = f"did not answer within {self._connection.timeout:g} s"
            raise self._no_answer(why, ExitCode.TIMED_OUT) from error
        except (OSError, HTTPException) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or repr(error)
            raise self._no_answer(f"can't be reached: {why}", ExitCode.ERROR) from error

    def _no_answer(self, why: str, exit_code: ExitCode) -> CliError:
        self._connection.close()
        return failure(
            exit_code,
            f"the control plane {why}",
            where=self.address,
            remedy="is it running? give its address by --addr or POINTSMAN_ADDR",
        )


def _only_reads(method: str, path: str, query: Mapping[str, str]) -> bool:
    return method == "GET" or path in _READING or query.get("dry_run") == "1" or path.endswith("?dry_run=1")


def _connection(scheme: str, host: str, port: int | None, timeout_s: float, ca_file: str) -> HTTPConnection:
    # Imported here: with email and ssl behind it, http.client would be a fifth of what `--help` may take.
    from http.client import HTTPConnection, HTTPSConnection

    if scheme == "http":
        return HTTPConnection(host, port, timeout=timeout_s)
    import ssl

    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise failure(
            ExitCode.USAGE,
            f"the CA file {ca_file} can't be used: {error.strerror or error}",
            where="--ca or POINTSMAN_CA",
            remedy="give a PEM file with the certificate of the CA",
        ) from error
    return HTTPSConnection(host, port, timeout=timeout_s, context=context)


def _author() -> str:
    """Who is at the keyboard, for the history. Told, not proved: access control is not built on it."""
    return os.environ.get("POINTSMAN_AUTHOR") or os.environ.get("USER") or os.environ.get("LOGNAME") or ""


def _header_text(text: str) -> str:
    """Percent-encoded UTF-8, as far as needed: a header can't carry more than ASCII safely."""
    return quote(text, safe=" !#$&'()*+,-./:;<=>?@[]^_`{|}~")


def segment(name: str) -> str:
    """A name or id as one segment of a path."""
    return quote(name, safe="")


def refused(status: int, body: Json, text: str, *, path: str) -> RefusedRequest:
    """The error for an answer of 4xx or 5xx to a request for `path`, in whatever shape it came."""
    told = as_object(body)
    message = told.get("message")
    what = message if isinstance(message, str) and message else text.strip()[:200] or f"HTTP status {status}"
    fields = told.get("fields") or told.get("options")
    where = ", ".join(_places(fields))
    return RefusedRequest(
        _exit_code(status), [Fault(what, where, _remedy(status, told.get("code"), path))], status=status, body=body
    )


def _exit_code(status: int) -> ExitCode:
    match status:
        case 401 | 403:
            return ExitCode.DENIED
        case 404:
            return ExitCode.NOT_FOUND
        case 409 | 412:
            return ExitCode.CONFLICT
        case 408 | 504:
            return ExitCode.TIMED_OUT
        case _:
            return ExitCode.ERROR


def _remedy(status: int, code: Json, path: str) -> str:
    """What to do, by Kong's error code or else by the status and what was asked for."""
    by_code = {
        1: "give a name, or an id as a UUID",
        2: "correct the fields named; `GET /schemas/{collection}` of the Admin API has the rules",
        3: "leave out the id, or choose another",
        4: "create what is referred to first, or remove what still refers to it",
        5: "choose another value, or change the existing entity with `set`",
        6: "see what there is with `list`",
        10: "correct the name",
        13: "create what is referred to first, or correct the name",
    }
    if isinstance(code, int) and code in by_code:
        return by_code[code]
    if status in (404, 410) and path.startswith("/versions"):
        return "see which versions there are with `pointsman history`"
    if status == 404:
        return "see what there is with `list`"
    if status == 412:
        return "see who wrote with `pointsman history`, compare again with `pointsman diff`, then repeat it"
    if status in (401, 403):
        return "use a token that may do this, by --token or POINTSMAN_TOKEN; `pointsman whoami` shows its role"
    if status >= 500:
        return "see the control plane's log; the configuration is as it was unless the answer says otherwise"
    return ""


def _places(fields: Json, path: str = "") -> Iterator[str]:
    if isinstance(fields, dict):
        for name, below in fields.items():
            yield from _places(below, path if name == "@entity" else f"{path}.{name}" if path else name)
    elif isinstance(fields, list) and path:
        for position, below in enumerate(fields):
            if below is not None:
                yield from _places(below, f"{path}[{position}]")
    elif fields is not None and path:
        yield f"field {path}"


def _parsed(text: str, content_type: str) -> Json:
    if not text or "json" not in content_type:
        return None
    try:
        body: Json = json.loads(text)
    except ValueError:
        return None
    return body

"""A client of servers that are one service: each call has an end, and is tried on each of them.

The one that answered last is asked first; one that takes no connection within two seconds gets
company.  A connection serves one call after another; a stream has one of its own.  Proxies of the
environment do not count: they are for the world outside.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from flanneld.http.connection import connect
from flanneld.http.errors import Refused, Unanswered, parsed, unanswered
from flanneld.http.tls import Contexts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from flanneld.http.connection import Connection, Request
    from flanneld.http.credentials import Credentials
    from flanneld.http.errors import Cause
    from flanneld.http.place import Place

_COMPANY_S = 2.0
_IDLE_S = 30.0  # so long a connection waits for the next call: servers close them after some time
_CALL = 3  # so many times as long as a server may be silent, a call may take
_LONGEST_REFUSAL = 1 << 16
_UNAUTHORIZED, _TOO_MANY = 401, 429


class Client:
    """The servers at these places, to which one is somebody by ``credentials``."""

    def __init__(
        self,
        places: Sequence[Place],
        credentials: Credentials,
        *,
        proxy: Place | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self.places = list(places)
        self._credentials = credentials
        self._contexts = Contexts()
        self._proxy = proxy
        self._timeout_s = timeout_s
        self._idle: tuple[Connection, float] | None = None

    async def call(self, request: Request) -> dict[str, Any]:
        """Give the object of JSON in the answer; Unanswered, Refused."""
        with unanswered(self.places[0], TimeoutError):
            async with asyncio.timeout(_CALL * self._timeout_s), self.answer(request) as answer:
                return parsed(await answer.body())

    @asynccontextmanager
    async def answer(self, request: Request, silence_s: float = 0.0) -> AsyncIterator[Connection]:
        """Give an answer while it comes; Unanswered, Refused.

        A stream may be silent for ``silence_s``, and has a connection of its own.
        """
        answer = await self._exchange(request, fresh=silence_s > 0)
        answer.silence_s = silence_s or self._timeout_s
        try:
            yield answer
        except BaseException:
            answer.close()
            raise
        if self._idle is None and answer.recycle():
            self._idle = answer, asyncio.get_running_loop().time()
        else:
            answer.close()

    def close(self) -> None:
        """Close what is open for the next call."""
        if self._idle is not None:
            self._idle[0].close()
            self._idle = None

    async def _exchange(self, request: Request, *, fresh: bool) -> Connection:
        """Have a request answered by one of the servers with 2xx."""
        refusal: Refused | None = None
        causes: dict[str, Cause] = {}
        left = list(self.places)
        with unanswered(left[0], OSError, ValueError):
            await self._credentials.authorization()
        connection = None if fresh else self._reusable()
        while used := connection or await self._connect(left, causes):
            try:
                await self._ask(used, request)
            except Unanswered as error:
                if connection is None:  # else it had been closed meanwhile: that says nothing
                    causes |= error.causes
                    left.remove(used.place)
            except Refused as error:
                if error.status < 500 and error.status != _TOO_MANY:
                    raise
                refusal = error  # another server may know better
                left.remove(used.place)
            else:
                place = used.place
                self.places.sort(key=lambda one: one != place)
                return used
            connection = None
        raise refusal or Unanswered(causes)

    async def _ask(self, connection: Connection, request: Request) -> None:
        """Ask on one connection, again if the authorization is refused; it is closed on failure."""
        connection.silence_s = self._timeout_s
        try:
            await self._authorized(connection, request, anew=False)
            if connection.status == _UNAUTHORIZED:
                await connection.body(_LONGEST_REFUSAL)
                if connection.recycle():
                    await self._authorized(connection, request, anew=True)
            if not 200 <= connection.status < 300:
                body, after = await connection.body(_LONGEST_REFUSAL), connection.headers
                raise Refused(
                    connection.place, connection.status, body, after.get("retry-after", "")
                )
        except BaseException:
            connection.close()
            raise

    async def _authorized(self, connection: Connection, request: Request, *, anew: bool) -> None:
        with unanswered(connection.place, OSError, ValueError):
            header = await self._credentials.authorization(anew=anew)
        if header:
            request = request._replace(headers=(*request.headers, ("Authorization", header)))
        await connection.ask(request)

    async def _connect(self, left: list[Place], causes: dict[str, Cause]) -> Connection | None:
        """Connect to the first that takes it; those that do not go from ``left`` to ``causes``."""
        waiting = list(left)
        running: dict[asyncio.Task[Connection], Place] = {}
        try:
            while waiting or running:
                if waiting:
                    place = waiting.pop(0)
                    running[asyncio.create_task(self._open(place))] = place
                patience = _COMPANY_S if waiting else None
                done, _ = await asyncio.wait(
                    running, timeout=patience, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    left.remove(place := running.pop(task))
                    try:
                        connection = task.result()
                    except Unanswered as error:
                        causes |= error.causes
                    else:
                        left.append(place)
                        return connection
        finally:
            for task in running:
                task.add_done_callback(_close)
                task.cancel()
        return None

    async def _open(self, place: Place) -> Connection:
        context = self._contexts.now(self._credentials.tls, place) if place.secure else None
        return await connect(place, context, self._proxy)

    def _reusable(self) -> Connection | None:
        if self._idle is None:
            return None
        (connection, since), self._idle = self._idle, None
        if connection.is_open and asyncio.get_running_loop().time() - since < _IDLE_S:
            return connection
        connection.close()
        return None


def _close(task: asyncio.Task[Connection]) -> None:
    """Close a connection that came too late."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()

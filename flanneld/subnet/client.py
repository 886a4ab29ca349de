"""A client of etcd v3 on several endpoints: each call has an end, and tries every endpoint once.

The calls are etcd3aio's; the channels are our own, one an endpoint, so that TLS knows each by its
name.  So is the watch: it asks for a leader, and leaves it to the caller to begin again.
Errors come out as StoreError with endpoint and cause.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

import grpc
import grpc.aio
from etcd3aio import EtcdError, EtcdUnauthenticatedError, prefix_range_end
from etcd3aio._protobuf import WatchCreateRequest, WatchRequest, WatchStub
from etcd3aio.auth import AuthService
from etcd3aio.kv import KVService
from etcd3aio.lease import LeaseService

from flanneld.subnet import causes
from flanneld.subnet.causes import Cause
from flanneld.subnet.manager import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

    from etcd3aio._protobuf import WatchResponse

    from flanneld.subnet.endpoint import TLS, Endpoint

T = TypeVar("T")

_log = logging.getLogger(__name__)

TIMEOUT_S = 5.0  # of one call on one endpoint
_FAILURES = (EtcdError, grpc.aio.AioRpcError, TimeoutError, OSError)


class Services:
    """The services of one endpoint, on a channel of their own."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.kv = KVService(channel, max_attempts=1)
        self.lease = LeaseService(channel, max_attempts=1)
        self.auth = AuthService(channel, max_attempts=1)
        self.watch = WatchStub(channel)

    def set_token(self, token: str) -> None:
        """Show the token of a login with every call."""
        self.kv.set_token(token)
        self.lease.set_token(token)

    async def keep_alive(self, lease_id: int) -> int:
        """Renew a lease once; gives its seconds to live, 0 if there is no such lease."""
        stream = self.lease.keep_alive(lease_id)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                async for response in stream:
                    return int(response.TTL)
        finally:
            stream.cancel()
        return 0


class Client:
    """The cluster.  With a user's name it logs in, and again whenever the login has ended."""

    def __init__(
        self, endpoints: Sequence[Endpoint], tls: TLS, user: str = "", password: str = ""
    ) -> None:
        self._endpoints = list(endpoints)
        self._tls = tls
        self._user = user
        self._password = password
        self._token = ""
        self._services: dict[Endpoint, Services] = {}
        self._dropped: WeakSet[grpc.aio.Channel] = WeakSet()

    async def call(self, operation: Callable[[Services], Awaitable[T]]) -> T:
        """Make a call on the endpoint that answered last, else on the others; StoreError."""
        failures: dict[str, Cause] = {}
        for endpoint in list(self._endpoints):
            try:
                answer = await self._call(endpoint, operation)
            except _FAILURES as error:
                failures[str(endpoint)] = _cause(error)
                self._drop(endpoint)
            else:
                self._prefer(endpoint)
                return answer
        raise StoreError(causes.listed(failures))

    async def watch(self, prefix: str, revision: int) -> AsyncGenerator[WatchResponse, None]:
        """Give etcd's answers about all keys with a prefix, from a revision on, as they come.

        The first one says that the watch exists.  Ends with StoreError; the next watch is on
        another endpoint.
        """
        endpoint, stream = self._endpoints[0], None
        try:
            services = await self._ready(endpoint)
            stream = services.watch.Watch(
                _watching(prefix, revision), metadata=self._metadata(hasleader="true")
            )
            async with asyncio.timeout(TIMEOUT_S):
                response = await stream.read()
            while response is not grpc.aio.EOF:
                yield response
                response = await stream.read()
            cause = Cause("it ended the watch")
        except _FAILURES as error:
            cause = _cause(error)
            if _is_login(error):
                self._token = ""
        finally:
            if stream is not None:
                stream.cancel()
        self._drop(endpoint)
        self._endpoints.remove(endpoint)
        self._endpoints.append(endpoint)
        raise StoreError(f"etcd's watch has ended: {endpoint}: {cause.text}")

    async def close(self) -> None:
        """Close all channels."""
        channels = [*(services.channel for services in self._services.values()), *self._dropped]
        self._services.clear()
        for channel in channels:
            await channel.close()

    async def _call(self, endpoint: Endpoint, operation: Callable[[Services], Awaitable[T]]) -> T:
        try:
            return await operation(await self._ready(endpoint))
        except (EtcdUnauthenticatedError, grpc.aio.AioRpcError) as error:
            if not self._token or not _is_login(error):
                raise
            self._token = ""
        return await operation(await self._ready(endpoint))

    async def _ready(self, endpoint: Endpoint) -> Services:
        """Give the services of an endpoint, logged in.  StoreError if a TLS file is not there."""
        services = self._services.get(endpoint)
        if services is None:
            try:
                services = Services(endpoint.channel(self._tls))
            except OSError as error:
                raise StoreError(f"reading the TLS files for {endpoint}: {error}") from None
            self._services[endpoint] = services
        if self._user and not self._token:
            answer = await services.auth.authenticate(self._user, self._password, timeout=TIMEOUT_S)
            self._token = answer.token
        if self._token:
            services.set_token(self._token)
        return services

    def _drop(self, endpoint: Endpoint) -> None:
        """Use another channel from now on, so that TLS files which were renewed are read."""
        services = self._services.pop(endpoint, None)
        if services is not None:
            self._dropped.add(services.channel)  # some other call may still be on it

    def _metadata(self, **pairs: str) -> tuple[tuple[str, str], ...]:
        token = {"token": self._token} if self._token else {}
        return tuple((pairs | token).items())

    def _prefer(self, endpoint: Endpoint) -> None:
        self._endpoints.remove(endpoint)
        self._endpoints.insert(0, endpoint)


async def _watching(prefix: str, revision: int) -> AsyncIterator[WatchRequest]:
    """Send one request and keep our half of the stream open: etcd ends a watch with it."""
    create = WatchCreateRequest(
        key=prefix.encode(),
        range_end=prefix_range_end(prefix),
        start_revision=revision,
        progress_notify=True,
    )
    yield WatchRequest(create_request=create)
    await asyncio.get_running_loop().create_future()


def _is_login(error: Exception) -> bool:
    """Whether etcd asks for another login: the token has ended, or its server has restarted."""
    if isinstance(error, EtcdUnauthenticatedError):
        return True
    return (
        isinstance(error, grpc.aio.AioRpcError) and error.code() == grpc.StatusCode.UNAUTHENTICATED
    )


def _cause(error: BaseException) -> Cause:
    if isinstance(error, TimeoutError):
        return Cause(f"no answer in {TIMEOUT_S:.0f} s")
    found: Any = error
    if isinstance(error, grpc.aio.AioRpcError):
        found = f"{error.code().name}: {error.details()}"
    return causes.cause(str(found) or "it broke the connection off")

"""A test in namespaces of its own is a fork of a process in which other tests have used gRPC."""

from __future__ import annotations

import asyncio

from grpc import aio

from tests.kernel.privatens import in_child


def test_a_child_that_lets_go_of_a_channel_ends() -> None:
    async def make() -> None:
        channels.append(aio.insecure_channel("127.0.0.1:1"))

    channels: list[aio.Channel] = []
    asyncio.run(make())
    in_child(channels.clear)

"""Ways to a real etcd: TLS with a client certificate, a user, several endpoints."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from flanneld import options
from flanneld.claim import Claim
from flanneld.flags import UsageError
from flanneld.subnet.client import Client
from flanneld.subnet.endpoint import TLS, Endpoint
from flanneld.subnet.etcd import Etcd
from flanneld.subnet.manager import StoreError
from tests.flanneld.etcdserver import PREFIX, free_port
from tests.flanneld.stores import attributes, store, until, value, watching

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from flanneld.lease import Lease
    from tests.flanneld.etcdserver import EtcdServer

AUTHORITY = ("-x509", "-subj", "/CN=authority", "-addext", "basicConstraints=critical,CA:TRUE")
MEMBER = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n"
CLIENT = "extendedKeyUsage=clientAuth\n"


def openssl(*argv: str, folder: Path) -> None:
    subprocess.run(["openssl", *argv], cwd=folder, check=True, capture_output=True)


def issue(folder: Path, name: str, extensions: str, authority: str = "ca") -> None:
    """Make NAME.key and NAME.pem, signed by an authority."""
    new = ("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key")
    if name == authority:
        openssl(*new, *AUTHORITY, "-days", "2", "-out", f"{name}.pem", folder=folder)
        return
    openssl(*new, "-subj", f"/CN={name}", "-out", f"{name}.csr", folder=folder)
    (folder / f"{name}.ext").write_text(extensions)
    signing = ("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial")
    files = ("-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", f"{name}.ext")
    openssl("x509", "-req", *files, *signing, "-days", "2", folder=folder)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a member's and a client's certificate; and a client of another authority."""
    folder = tmp_path_factory.mktemp("pki")
    for authority in ("ca", "other"):
        issue(folder, authority, "", authority)
    issue(folder, "member", MEMBER)
    issue(folder, "client", CLIENT)
    issue(folder, "stranger", CLIENT, "other")
    return folder


@pytest.fixture
def secure(new_etcd: Callable[..., EtcdServer], pki: Path) -> EtcdServer:
    server = new_etcd(
        tls=(
            *("--cert-file", str(pki / "member.pem"), "--key-file", str(pki / "member.key")),
            *("--trusted-ca-file", str(pki / "ca.pem"), "--client-cert-auth"),
        ),
        client=(
            *("--cacert", str(pki / "ca.pem"), "--cert", str(pki / "client.pem")),
            *("--key", str(pki / "client.key")),
        ),
    )
    server.configure()
    return server


def tls(pki: Path, name: str = "client", authority: str = "ca") -> list[str]:
    return [
        *("--etcd-cafile", str(pki / f"{authority}.pem")),
        *("--etcd-certfile", str(pki / f"{name}.pem"), "--etcd-keyfile", str(pki / f"{name}.key")),
    ]


async def lease(server: EtcdServer, *argv: str) -> Lease:
    """Acquire, and see the lease in a watch."""
    async with store(server, *argv) as manager, watching(manager) as seen:
        acquired = await manager.acquire(Claim(attributes()))
        await until(seen, lambda leases: acquired.key in leases)
        return acquired


def test_tls_with_a_client_certificate(secure: EtcdServer, pki: Path) -> None:
    acquired = asyncio.run(lease(secure, *tls(pki)))
    assert secure.leases() == {acquired.key: value()}


@pytest.mark.parametrize(
    ("name", "authority", "words"),
    [
        ("stranger", "ca", "it refuses this client's certificate, or wants one"),
        ("client", "other", "its certificate is of no authority in --etcd-cafile"),
    ],
    ids=["client", "server"],
)
def test_a_certificate_of_another_authority_is_refused(
    secure: EtcdServer, pki: Path, name: str, authority: str, words: str
) -> None:
    with pytest.raises(StoreError, match=f"^etcd refuses: {secure.url}: {words}"):
        asyncio.run(lease(secure, *tls(pki, name, authority)))
    assert secure.leases() == {}


def test_other_trouble_with_tls_is_a_sentence(
    secure: EtcdServer, pki: Path, tmp_path: Path
) -> None:
    async def said(url: str, *argv: str) -> str:
        manager = Etcd(options.read(["--etcd-endpoints", url, *argv], {}))
        try:
            with pytest.raises(StoreError) as refused:
                await manager.config()
            return str(refused.value)
        finally:
            await manager.close()

    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    elsewhere = secure.url.replace("127.0.0.1", "localhost")
    plain = secure.url.replace("https", "http")
    for url, argv, words in (
        (elsewhere, tls(pki), "its certificate is not for this name"),
        (secure.url, ["--etcd-cafile", str(pki / "ca.pem")], "it refuses this client's"),
        (secure.url, ["--etcd-cafile", str(empty)], "the TLS files cannot be used"),
        (plain, [], "it closed the connection; if it always does: is it https://?"),
        ("http://no-such-host.invalid:2379", [], "its name "),  # what is wrong with it, DNS says
        (f"http://127.0.0.1:{free_port()}", [], "nothing listens there"),
    ):
        assert f"{url}: {words}" in asyncio.run(said(url, *argv))


def test_a_certificate_that_was_renewed_is_read(
    secure: EtcdServer, pki: Path, tmp_path: Path
) -> None:
    def put(name: str) -> None:
        for kind in ("pem", "key"):
            shutil.copy(pki / f"{name}.{kind}", tmp_path / f"now.{kind}")

    async def body() -> None:
        files = [
            *("--etcd-cafile", str(pki / "ca.pem"), "--etcd-certfile", str(tmp_path / "now.pem")),
            *("--etcd-keyfile", str(tmp_path / "now.key")),
        ]
        put("stranger")
        async with store(secure, *files) as manager:
            with pytest.raises(StoreError):
                await manager.config()
            put("client")
            await manager.config()

    asyncio.run(body())


def test_a_file_that_is_not_there_is_named(secure: EtcdServer, pki: Path) -> None:
    with pytest.raises(StoreError, match=r"TLS files.*nowhere\.pem"):
        asyncio.run(lease(secure, "--etcd-cafile", str(pki / "nowhere.pem")))


@pytest.fixture
def guarded(etcd: EtcdServer) -> EtcdServer:
    """An etcd with users."""
    return guard(etcd)


def guard(etcd: EtcdServer) -> EtcdServer:
    """Let only `flannel`, with its password, write, and only under our prefix."""
    etcd.configure()
    etcd.ctl("user", "add", "root:rooted")
    etcd.ctl("user", "grant-role", "root", "root")
    etcd.ctl("user", "add", "flannel:secret")
    etcd.ctl("role", "add", "flannel")
    etcd.ctl("role", "grant-permission", "flannel", "readwrite", "--prefix", f"{PREFIX}/")
    etcd.ctl("user", "grant-role", "flannel", "flannel")
    etcd.ctl("auth", "enable")
    etcd.user = "root:rooted"
    return etcd


LOGIN = ("--etcd-username", "flannel", "--etcd-password", "secret")


def test_a_user_with_a_password(guarded: EtcdServer) -> None:
    acquired = asyncio.run(lease(guarded, *LOGIN))
    assert guarded.leases() == {acquired.key: value()}


def test_a_wrong_password_is_refused(guarded: EtcdServer) -> None:
    with pytest.raises(StoreError, match="authentication failed"):
        asyncio.run(lease(guarded, "--etcd-username", "flannel", "--etcd-password", "wrong"))


def test_a_user_without_the_right_is_refused(guarded: EtcdServer) -> None:
    with pytest.raises(StoreError, match="permission denied"):
        asyncio.run(lease(guarded, *LOGIN, "--etcd-prefix", "/elsewhere"))


def test_a_login_that_the_server_forgot_is_made_again(
    new_etcd: Callable[..., EtcdServer],
) -> None:
    """A token of one second ends between two calls that are further apart, but not by the clock."""
    server = guard(new_etcd(flags=("--auth-token-ttl", "1")))

    async def forgotten(call: Callable[[], Awaitable[object]]) -> None:
        """Call after longer and longer pauses, until that has taken another login."""
        before = server.calls("Authenticate")
        for pause in (1.5, 3, 6, 12, 24):
            await asyncio.sleep(pause)
            await call()
            if server.calls("Authenticate") > before:
                return
        raise AssertionError("etcd never forgot the login")

    async def body() -> None:
        async with store(server, *LOGIN) as manager:
            acquired = await manager.acquire(Claim(attributes()))

            async def watch() -> None:
                async with watching(manager) as seen:
                    await until(seen, lambda leases: acquired.key in leases)

            await forgotten(lambda: manager.publish(acquired, attributes(7)))
            await forgotten(watch)

    asyncio.run(body())
    assert list(server.leases().values()) == [value(7)]


class TestEndpoints:
    def test_those_that_are_away_are_passed_over(self, etcd: EtcdServer) -> None:
        etcd.configure()
        away = f"http://127.0.0.1:{free_port()}"

        async def body() -> Lease:
            manager = Etcd(options.read(["--etcd-endpoints", f"{away},{etcd.url}"], {}))
            try:
                async with watching(manager) as seen:
                    acquired = await manager.acquire(Claim(attributes()))
                    await until(seen, lambda leases: acquired.key in leases)
                    return acquired
            finally:
                await manager.close()

        acquired = asyncio.run(body())
        assert list(etcd.leases()) == [acquired.key]

    def test_one_that_hangs_is_passed_over(
        self, new_etcd: Callable[..., EtcdServer], etcd: EtcdServer
    ) -> None:
        etcd.configure()
        hanging = new_etcd()
        hanging.freeze()

        async def body() -> Lease:
            manager = Etcd(options.read(["--etcd-endpoints", f"{hanging.url},{etcd.url}"], {}))
            try:
                return await manager.acquire(Claim(attributes()))
            finally:
                await manager.close()

        acquired = asyncio.run(body())
        assert list(etcd.leases()) == [acquired.key]

    def test_if_none_answers_each_is_named(self) -> None:
        away = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]

        async def body() -> None:
            manager = Etcd(options.read(["--etcd-endpoints", ",".join(away)], {}))
            try:
                await manager.config()
            finally:
                await manager.close()

        with pytest.raises(StoreError, match=f"{away[0]}: .*{away[1]}: "):
            asyncio.run(body())

    def test_a_watch_that_cannot_log_in_is_begun_again(self) -> None:
        away = Endpoint(f"127.0.0.1:{free_port()}", secure=False)

        async def body() -> None:
            client = Client([away], TLS(), "flannel", "secret")
            try:
                async with aclosing(client.watch("/", 1)) as responses:
                    await anext(responses)
            finally:
                await client.close()

        with pytest.raises(StoreError, match=f"watch has ended: {away}: "):
            asyncio.run(body())

    @pytest.mark.parametrize(
        "url", ["127.0.0.1:2379", "ftp://127.0.0.1:2379", "http://:2379", "http://a:99999"]
    )
    def test_one_that_is_no_url_is_refused(self, url: str) -> None:
        with pytest.raises(UsageError, match="-etcd-endpoints"):
            Etcd(options.read(["--etcd-endpoints", url], {}))

"""The server's life, as a process of its own where signals and exit codes matter."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sys
import urllib.request
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import msgspec
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import sentimill.server.server
from live_server import WAIT_SECONDS, live_server
from raw_calls import request_of
from sentimill import AsyncClient, Prediction
from sentimill.errors import EngineError, UnavailableError, UsageError
from sentimill.server.lifecycle import Serving, start
from sentimill.server.open_inference_service import SERVICE as OPEN_INFERENCE
from sentimill.server.request_handler import Limits
from sentimill.server.sentiment_service import SERVICE
from sentimill.server.server import _LEAST_PING_MS
from sentimill.server.settings import Serve
from sentimill.v1 import sentiment_pb2 as pb
from tiny_bundle import WORDS, graph, write_tiny_bundle

# The program, before an engine that waits for a line on stdin when it sees the word `poison`; at
# the end it tells what it has loaded.
PROGRAM = f"""
import atexit, sys
from sentimill.classifier import Classifier
from sentimill.cli.main import main

run = Classifier.run

def wait_and_run(self, rows, other_calls=0):
    if any({WORDS.index("poison")} in row for row in rows):
        print("engine busy", file=sys.stderr, flush=True)
        sys.stdin.readline()
    return run(self, rows, other_calls)

Classifier.run = wait_and_run
atexit.register(lambda: print(*sorted({{"torch", "transformers", "pandas"}} & set(sys.modules))))
main()
"""


class Program:
    """A running `sentimill serve`."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.address = ""
        self.metrics = ""

    async def said(self, pattern: str) -> str:
        """Return the first group of *pattern* in the next line of stderr that has it."""
        assert self.process.stderr is not None
        async with asyncio.timeout(WAIT_SECONDS):
            while line := (await self.process.stderr.readline()).decode():
                self.lines.append(line)
                if found := re.search(pattern, line):
                    return found[found.re.groups]
        raise AssertionError("".join(self.lines))

    def release(self) -> None:
        """Let the engine go on."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    async def end(self) -> tuple[int | None, str]:
        """Wait for the process; return its exit code and what it wrote to stdout."""
        async with asyncio.timeout(WAIT_SECONDS):
            out, rest = await self.process.communicate()
        self.lines.append(rest.decode())
        return self.process.returncode, out.decode().strip()


@asynccontextmanager
async def program(*args: str | Path, code: str = PROGRAM) -> AsyncIterator[Program]:
    """Run `sentimill serve` on *args*."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, "serve", *args, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    made = Program(process)
    try:
        yield made
    finally:
        if process.returncode is None:
            process.kill()
            await made.end()


@asynccontextmanager
async def serving(bundle: Path, *args: str, code: str = PROGRAM) -> AsyncIterator[Program]:
    """Run `sentimill serve` on free ports, and wait until it answers."""
    ports = ("--port", "0", "--metrics-port", "0")
    async with program("--bundle", bundle, *ports, *args, code=code) as made:
        made.address = await made.said(r"serving .* on (\S+)$")
        made.metrics = await made.said(r"metrics on (\S+)$")
        yield made


@asynccontextmanager
async def in_process(config: Serve) -> AsyncIterator[Serving]:
    """Run a server in this event loop."""
    async with AsyncExitStack() as stack:
        yield await start(config, stack)


async def watch(address: str, seen: list[str], came: asyncio.Event) -> None:
    """Write the states of our service into *seen* as they come, up to NOT_SERVING."""
    request = health_pb2.HealthCheckRequest(service=SERVICE).SerializeToString()
    async with grpc.aio.insecure_channel(address) as channel:
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
        method = channel.unary_stream("/grpc.health.v1.Health/Watch")
        async for data in method(request):
            seen.append(state(data))
            came.set()
            if seen[-1] == "NOT_SERVING":
                return


def state(data: bytes) -> str:
    """Return the name of the state in a health response."""
    status = health_pb2.HealthCheckResponse.FromString(data).status
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(status))


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_the_calls_under_way(bundle: Path, name: signal.Signals) -> None:
    """Health goes first, new calls are refused, the call under way is answered, exit code 0."""
    seen: list[str] = []
    came = asyncio.Event()
    async with serving(bundle) as made, AsyncClient(made.address) as client:
        watching = asyncio.create_task(watch(made.address, seen, came))
        under_way = asyncio.create_task(client.classify(["good poison"]))
        await made.said("(engine busy)")
        await came.wait()
        made.process.send_signal(name)
        await asyncio.wait_for(watching, WAIT_SECONDS)
        with pytest.raises(UnavailableError):
            await client.classify(["good"])
        assert not under_way.done()
        made.release()
        (answer,) = await under_way
        code, out = await made.end()

    assert isinstance(answer, Prediction)
    assert answer.label == "positive"
    assert seen == ["SERVING", "NOT_SERVING"]
    assert (code, out) == (0, "")


async def test_sighup_follows_the_link_to_another_bundle(tmp_path: Path) -> None:
    """New calls get the new model at once; the call under way is answered by the old one."""
    old = write_tiny_bundle(tmp_path / "v1")
    new = write_tiny_bundle(
        tmp_path / "v2", change=lambda m: msgspec.structs.replace(m, version="2")
    )
    link = tmp_path / "live"
    link.symlink_to(old.path)
    async with serving(link) as made, AsyncClient(made.address) as client:
        under_way = asyncio.create_task(client.classify(["good poison"]))
        await made.said("(engine busy)")
        assert (await client.model()).digest == old.digest
        link.unlink()
        link.symlink_to(new.path)
        made.process.send_signal(signal.SIGHUP)
        await made.said(rf"serving tiny \(({new.digest[:12]})\)")
        assert (await client.model()).digest == new.digest
        assert await client.classify(["good"])
        assert not under_way.done()
        made.release()
        (slow,) = await under_way
        made.process.send_signal(signal.SIGTERM)
        code, _ = await made.end()

    assert isinstance(slow, Prediction)
    assert (slow.label, code) == ("positive", 0)


async def test_a_drain_that_takes_too_long_is_cut(bundle: Path) -> None:
    """The caller hears of it and may call another instance; the exit code is still 0."""
    async with (
        serving(bundle, "--drain-seconds", "0.1") as made,
        AsyncClient(made.address) as client,
    ):
        under_way = asyncio.create_task(client.classify(["good poison"]))
        await made.said("(engine busy)")
        made.process.send_signal(signal.SIGTERM)
        with pytest.raises(UnavailableError):
            await under_way
        made.release()
        code, _ = await made.end()

    assert code == 0


# The program with a model that takes for ever to warm up.
SLOW_TO_LOAD = """
import sys, time
import sentimill.server.model_loader
from sentimill.cli.main import main

def warm_up(classifier, batch_tokens):
    print("loading", file=sys.stderr, flush=True)
    time.sleep(600)

sentimill.server.model_loader.warm_up = warm_up
main()
"""


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_while_the_model_loads_ends_the_process(
    bundle: Path, name: signal.Signals
) -> None:
    """At once and with exit code 0, without a word of a traceback."""
    ports = ("--port", "0", "--metrics-port", "0")
    async with program("--bundle", bundle, *ports, code=SLOW_TO_LOAD) as made:
        await made.said("(loading)")
        made.process.send_signal(name)
        code, _ = await asyncio.wait_for(made.end(), 10)

    assert code == 0
    assert "Traceback" not in "".join(made.lines)


async def test_a_signal_ends_a_process_whose_engine_hangs(bundle: Path) -> None:
    """The drain waits some seconds for the engine, and nothing waits for its thread."""
    async with (
        serving(bundle, "--drain-seconds", "0.1") as made,
        AsyncClient(made.address) as client,
    ):
        under_way = asyncio.create_task(client.classify(["good poison"]))
        await made.said("(engine busy)")
        made.process.send_signal(signal.SIGTERM)
        code, _ = await asyncio.wait_for(made.end(), 20)
        with pytest.raises(UnavailableError):
            await under_way

    assert code == 0


# The program with a watchdog that loses no time, before an engine that fails once it was told to.
BREAKING = f"""
import sentimill.server.lifecycle as lifecycle
from sentimill.classifier import Classifier
from sentimill.cli.main import main
from sentimill.server.watchdog import Watchdog, WatchdogLimits

broken = False
run = Classifier.run

def fail_or_run(self, rows, other_calls=0):
    global broken
    if any({WORDS.index("poison")} in row for row in rows):
        broken = True
    if broken:
        raise RuntimeError("the device is gone")
    return run(self, rows, other_calls)

Classifier.run = fail_or_run
fast = WatchdogLimits(failures=1, call_seconds=1, load_seconds=5, look_seconds=0.01)
lifecycle.Watchdog = lambda slot, limits, *rest, **named: Watchdog(slot, fast, *rest, **named)
main()
"""


async def test_an_engine_that_stays_broken_ends_the_process_with_an_error(bundle: Path) -> None:
    """Exit code 1, so that systemd, Kubernetes or the supervisor of workers starts another."""
    async with (
        serving(bundle, "--drain-seconds", "0.1", code=BREAKING) as made,
        AsyncClient(made.address) as client,
    ):
        with pytest.raises(UnavailableError):
            await client.classify(["poison"])
        code, _ = await asyncio.wait_for(made.end(), 20)

    assert code == 1
    assert "cannot be loaded again" in "".join(made.lines)


async def test_serving_needs_neither_torch_nor_transformers(bundle: Path) -> None:
    """After a request was answered, none of the training libraries is loaded."""
    async with serving(bundle) as made:
        async with AsyncClient(made.address) as client:
            await client.classify(["good"])
        made.process.send_signal(signal.SIGTERM)
        code, out = await made.end()

    assert (code, out) == (0, "")
    assert "Traceback" not in "".join(made.lines)


@pytest.mark.parametrize("which", ["--port", "--metrics-port"])
async def test_a_busy_port_is_a_clear_error(bundle: Path, which: str) -> None:
    """Exit code 2 and one line that names the port and the option; calls are never shared."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"--port": "0", "--metrics-port": "0", which: str(port)}
        args = [part for pair in ports.items() for part in pair]
        async with program("--bundle", bundle, *args) as made:
            code, out = await made.end()

    assert (code, out) == (2, "")
    *_, line = "".join(made.lines).strip().splitlines()
    assert line.startswith("error: ")
    assert f"127.0.0.1:{port} cannot be opened" in line
    assert which in line
    assert "Traceback" not in "".join(made.lines)


async def test_two_servers_never_share_a_port(bundle: Path) -> None:
    """A second server on the same port is refused, not given half of the calls."""
    async with in_process(Serve(bundle=bundle, port=0, metrics_port=0)) as first:
        port = int(first.address.rpartition(":")[2])
        with pytest.raises(UsageError, match=f"127.0.0.1:{port} cannot be opened"):
            async with in_process(Serve(bundle=bundle, port=port, metrics_port=0)):
                pass
        async with AsyncClient(first.address) as client:
            assert (await client.model()).name == "tiny"


async def test_a_bundle_that_does_not_verify_is_never_served(tmp_path: Path) -> None:
    """Exit code 4, before anything listens."""
    made = write_tiny_bundle(tmp_path / "tiny")
    (made.path / "onnx/fp32.onnx").write_bytes(graph(fail_on="poison"))
    async with program("--bundle", made.path, "--port", "0", "--metrics-port", "0") as server:
        code, _ = await server.end()

    assert code == 4
    assert "onnx/fp32.onnx has" in server.lines[-1]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
async def test_an_address_for_everybody_is_refused_without_leave(bundle: Path, host: str) -> None:
    """Calls are not encrypted, so they stay on the machine unless a person says otherwise."""
    with pytest.raises(UsageError, match=r"put a TLS proxy in front of it .* --insecure") as caught:
        async with in_process(Serve(bundle=bundle, host=host, port=0, metrics_port=0)):
            pass

    assert caught.value.reason == "INSECURE_BIND"


async def test_with_leave_every_address_is_served(bundle: Path) -> None:
    """`--insecure` is for a machine behind a proxy."""
    config = Serve(bundle=bundle, host="0.0.0.0", insecure=True, port=0, metrics_port=0)
    async with in_process(config) as made:
        port = made.address.rpartition(":")[2]
        async with AsyncClient(f"127.0.0.1:{port}") as client:
            assert (await client.model()).name == "tiny"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
async def test_each_way_to_write_loopback_is_served(bundle: Path, host: str) -> None:
    """The address that is told is one that a client can take."""
    if host == "::1":
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("no IPv6 here")
    async with (
        in_process(Serve(bundle=bundle, host=host, port=0, metrics_port=0)) as made,
        AsyncClient(made.address) as client,
    ):
        assert (await client.model()).name == "tiny"


async def test_health_is_told_for_the_server_and_the_service(bundle: Path) -> None:
    """Every name that probes ask for is SERVING."""
    config = Serve(bundle=bundle, port=0, metrics_port=0, open_inference=True)
    async with in_process(config) as made, grpc.aio.insecure_channel(made.address) as channel:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        method = channel.unary_unary("/grpc.health.v1.Health/Check")
        for name in ("", SERVICE, OPEN_INFERENCE):
            request = health_pb2.HealthCheckRequest(service=name)
            assert state(await method(request.SerializeToString())) == "SERVING"


async def services(address: str) -> list[str]:
    """Return the services that reflection lists."""
    async with grpc.aio.insecure_channel(address) as channel:
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        method = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        )
        call = method()
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        await call.write(request.SerializeToString())
        await call.done_writing()
        data = await call.read()
        assert isinstance(data, bytes), await call.code()
    answer = reflection_pb2.ServerReflectionResponse.FromString(data)
    return [service.name for service in answer.list_services_response.service]


async def test_reflection_lists_the_services_where_it_is_asked_for(bundle: Path) -> None:
    """Tools such as grpcurl find the contract."""
    async with in_process(Serve(bundle=bundle, port=0, metrics_port=0, reflection=True)) as made:
        found = await services(made.address)

    assert {SERVICE, "grpc.health.v1.Health"} <= set(found)


async def test_reflection_is_off_by_default(bundle: Path) -> None:
    """Nothing is told that nobody asked for."""
    async with in_process(Serve(bundle=bundle, port=0, metrics_port=0)) as made:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await services(made.address)

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_metrics_name_the_model(bundle: Path) -> None:
    """Which model answers is part of what is counted."""
    config = Serve(bundle=bundle, port=0, metrics_port=0)
    async with in_process(config) as made, AsyncClient(made.address) as client:
        await client.classify(["good"])
        digest = (await client.model()).digest
        url = f"http://{made.metrics_address}/metrics"
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=10).read())

    assert f'digest="{digest}"' in page.decode()
    assert 'sentimill_texts_total{outcome="positive"} 1.0' in page.decode()


async def test_a_failed_warm_up_stops_the_start(tmp_path: Path) -> None:
    """A model that cannot run its largest batch is not served."""
    made = write_tiny_bundle(
        tmp_path / "tiny", change=lambda m: msgspec.structs.replace(m, pad_id=99)
    )

    with pytest.raises(EngineError):
        async with in_process(Serve(bundle=made.path, port=0, metrics_port=0)):
            pass


async def test_old_connections_are_renewed_and_no_call_fails(bundle: Path) -> None:
    """The channel leaves its connection twice, and every call on it is answered."""
    config = Serve(bundle=bundle, port=0, metrics_port=0, max_connection_age_seconds=1)
    data = request_of("good").SerializeToString()
    ready = grpc.ChannelConnectivity.READY
    with live_server(config) as live:
        async with grpc.aio.insecure_channel(live.address) as channel:
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
            method = channel.unary_unary(f"/{SERVICE}/Classify")
            async with asyncio.timeout(WAIT_SECONDS):
                for _ in range(2):
                    await method(data)
                    left = asyncio.create_task(channel.wait_for_state_change(ready))
                    while not left.done():
                        await method(data)
                    await left


@pytest.mark.parametrize("accepted", [False, True])
async def test_a_compressed_call_is_refused_unless_it_is_asked_for(
    bundle: Path, accepted: bool
) -> None:
    """A few kilobytes of gzip can hold megabytes, so a server accepts none by default."""
    config = Serve(bundle=bundle, port=0, metrics_port=0, compression=accepted)
    async with (
        in_process(config) as made,
        grpc.aio.insecure_channel(made.address, compression=grpc.Compression.Gzip) as channel,
    ):
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        method = channel.unary_unary(f"/{SERVICE}/Classify")
        call = method(request_of("good " * 100).SerializeToString())
        code = await call.code()

    assert code is (grpc.StatusCode.OK if accepted else grpc.StatusCode.UNIMPLEMENTED)


async def test_a_compressed_bomb_is_refused_before_it_is_unpacked(bundle: Path) -> None:
    """64 KiB of gzip that hold 64 MiB; gRPC before 1.83.1 unpacked them to learn their size."""
    options = [("grpc.max_send_message_length", -1)]
    gzip = grpc.Compression.Gzip
    async with (
        serving(bundle, "--compression") as made,
        grpc.aio.insecure_channel(made.address, options, compression=gzip) as channel,
    ):
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        method = channel.unary_unary(f"/{SERVICE}/Classify")
        await method(request_of("good").SerializeToString())
        before = peak_mib(made.process.pid)
        code = await method(bytes(64 << 20)).code()
        after = peak_mib(made.process.pid)

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert after - before < 32


def peak_mib(pid: int) -> int:
    """Return the most memory that a process has had."""
    (found,) = re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found) >> 10


async def idle_stream(channel: grpc.aio.Channel) -> grpc.aio.StreamStreamCall[bytes, bytes]:
    """Open a stream that the server has answered once, and that then says nothing."""
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
    method = channel.stream_stream(f"/{SERVICE}/ClassifyStream")
    call = method()
    await call.write(pb.ClassifyStreamRequest(request=request_of("good")).SerializeToString())
    assert await call.read() is not grpc.aio.EOF
    return call


async def test_calls_past_the_limit_are_refused(bundle: Path) -> None:
    """An idle stream is a call; a further one is refused by gRPC itself."""
    config = Serve(bundle=bundle, port=0, metrics_port=0, limits=Limits(max_calls=1))
    async with in_process(config) as made, grpc.aio.insecure_channel(made.address) as channel:
        unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        unary = channel.unary_unary(f"/{SERVICE}/GetModel")
        call = await idle_stream(channel)
        assert await unary(b"").code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK


async def test_idle_streams_of_one_connection_leave_calls_to_others(bundle: Path) -> None:
    """Its further calls wait for one to end, so the server has calls left for other connections."""
    limits = Limits(max_calls=3, connection_calls=2)
    own = [("grpc.use_local_subchannel_pool", 1)]
    async with (
        in_process(Serve(bundle=bundle, port=0, metrics_port=0, limits=limits)) as made,
        grpc.aio.insecure_channel(made.address, own) as greedy,
        grpc.aio.insecure_channel(made.address, own) as other,
    ):
        streams = [await idle_stream(greedy) for _ in range(2)]
        third = asyncio.create_task(idle_stream(greedy))
        unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        unary = other.unary_unary(f"/{SERVICE}/GetModel")
        codes = [await unary(b"").code() for _ in range(20)]
        assert not third.done()
        await streams[0].done_writing()
        assert await streams[0].code() is grpc.StatusCode.OK
        await (await third).done_writing()

    assert set(codes) == {grpc.StatusCode.OK}


@pytest.mark.slow
async def test_a_client_that_pings_every_ten_seconds_keeps_its_idle_stream(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Go's and Java's clients do at most; gRPC's defaults cut such a stream at the third ping.

    The clock of the test runs ten times as fast.
    """
    monkeypatch.setattr(sentimill.server.server, "_LEAST_PING_MS", _LEAST_PING_MS // 10)
    options = [("grpc.keepalive_time_ms", 1_000), ("grpc.keepalive_permit_without_calls", 1)]
    options.append(("grpc.http2.max_pings_without_data", 0))
    async with (
        in_process(Serve(bundle=bundle, port=0, metrics_port=0)) as made,
        grpc.aio.insecure_channel(made.address, options=options) as channel,
    ):
        call = await idle_stream(channel)
        await asyncio.sleep(4.5)  # what is tested is that nothing happens
        message = pb.ClassifyStreamRequest(request=request_of("good"))
        await call.write(message.SerializeToString())
        assert await call.read() is not grpc.aio.EOF
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK

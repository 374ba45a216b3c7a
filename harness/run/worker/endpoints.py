"""One SUT of a job, ready to be asked: requests are sent by this process, or by others that it starts."""

import asyncio
import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.answers.payloads import payload_floats
from harness.data.sample_file import SampleFile
from harness.errors import InferenceError
from harness.machine.kernel import cpu_seconds, peak_rss_bytes
from harness.models import manifest
from harness.models.spec import Variant
from harness.run.worker.books import Answered
from harness.run.worker.client_process import Assignment, ProcessEndpoint, ProcessStore
from harness.run.worker.job import Job
from harness.run.worker.qsl import (
    CountedSamples,
    MessageStore,
    SampleLibrary,
    SharedMemoryStore,
    Stores,
    batch_that_fits,
    open_stores,
)
from harness.run.worker.sut import Complete, Endpoint, Record, ServerEndpoint, Slot, Sut
from harness.triton.channels import AnyChannel, open_channel
from harness.triton.client import TritonClient


@dataclass(frozen=True)
class Session:
    """A job's model on its servers: endpoints that share loaded samples, on one event loop."""

    job: Job
    variant: Variant
    clients: Sequence[TritonClient]
    """Of each server, in the order of the job's addresses."""
    transports: Sequence[str]
    """How samples travel to each server."""
    samples: CountedSamples
    library: SampleLibrary
    loop: asyncio.AbstractEventLoop
    endpoints: Sequence[Endpoint]
    answer_now: Callable[[Slot], Sequence[int]] | None = None
    """Answers on the calling thread, where one request at a time is all there is."""
    processes: Sequence[int] = ()
    """Ids of the client processes."""

    def sut(self, complete: Complete, record: Record = lambda *_: None) -> Sut:
        """A SUT of this job; see there."""
        servers, endpoints = self.job.servers, range(len(self.endpoints))
        return Sut(
            self.loop,
            self.endpoints,
            self.library,
            complete,
            # Of one server everybody knows which it is.
            places=[servers[number % len(servers)].url for number in endpoints] if len(servers) > 1 else (),
            payload_floats=payload_floats(self.variant),
            batch=self.job.client_batch,
            in_flight=-(-self.job.in_flight * len(self.clients) // len(self.endpoints)),
            answer_now=self.answer_now,
            record=record,
        )

    def answered(self, *suts: Sut) -> list[Answered]:
        """What each server has answered to these."""
        servers = [Answered() for _ in self.clients]
        for sut in suts:
            for number, answered in enumerate(sut.answered()):
                # As the endpoints were given their servers.
                servers[number % len(servers)] += answered
        return servers

    def cpu_seconds(self) -> float:
        """CPU time used so far, of this process and the client processes."""
        return sum(map(cpu_seconds, (os.getpid(), *self.processes)))

    def peak_rss_bytes(self) -> int:
        """Most memory that each of these processes ever had, added up."""
        return sum(map(peak_rss_bytes, (os.getpid(), *self.processes)))


class Meter:
    """Wall and CPU time from its making on, in seconds, without what is left out."""

    def __init__(self, cpu_seconds: Callable[[], float]) -> None:
        self._cpu_seconds = cpu_seconds
        self._began_s, self._cpu_began_s = self._now()

    def leaving_out(self, load: Callable[[list[int]], None]) -> Callable[[list[int]], None]:
        """`load`, whose time does not count."""

        def load_off_the_clock(indices: list[int]) -> None:
            began_s, cpu_began_s = self._now()
            load(indices)
            ended_s, cpu_ended_s = self._now()
            self._began_s += ended_s - began_s
            self._cpu_began_s += cpu_ended_s - cpu_began_s

        return load_off_the_clock

    def read(self) -> tuple[float, float]:
        """Wall and CPU time so far."""
        now_s, cpu_now_s = self._now()
        return now_s - self._began_s, cpu_now_s - self._cpu_began_s

    def _now(self) -> tuple[float, float]:
        return time.monotonic(), self._cpu_seconds()


@contextlib.contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="requests", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


@contextlib.contextmanager
def connected(job: Job) -> Iterator[Session]:
    """Connect to the servers of a job; all is closed in the end.

    Raises:
        HarnessError: the entry is not the job's any more, or samples cannot travel as the job wants.
    """
    facts = manifest.load(Path(job.entry_dir))
    if facts.graph_sha256 != job.graph_sha256:
        raise InferenceError(f"{job.entry_dir} was converted again by another process: run again")
    variant = facts.variant
    samples = CountedSamples(SampleFile(Path(job.samples)))
    # MultiStream repeats samples at the end, so that a query may start at any of them.
    rows = min(job.plan.performance_sample_count, len(samples)) + job.plan.samples_per_query - 1
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(TritonClient(server)) for server in job.servers]
        stores = open_stores(job, clients, variant, rows)
        stack.enter_context(contextlib.closing(Stores(stores)))
        transports = [store.transport for store in stores]
        job = dataclasses.replace(job, client_batch=batch_that_fits(stores, variant, job.client_batch))
        loop = stack.enter_context(event_loop())
        if job.processes == 1:
            library = SampleLibrary(samples, Stores(stores))
            endpoints = stack.enter_context(_own_endpoints(job, loop, clients, variant, stores))
            is_one = len(endpoints) == job.in_flight == 1
            now = endpoints[0].answer_now if is_one else None
            yield Session(job, variant, clients, transports, samples, library, loop, endpoints, now)
        else:
            processes = stack.enter_context(_processes(job, loop, transports))
            kept = [ProcessStore(process) for process in processes if not process.is_shared]
            shared = [store for store in stores if isinstance(store, SharedMemoryStore)]
            library = SampleLibrary(samples, Stores([*shared, *kept]))
            pids = [process.pid for process in processes]
            yield Session(
                *(job, variant, clients, transports, samples, library, loop, processes), processes=pids
            )


@contextlib.contextmanager
def _own_endpoints(
    job: Job,
    loop: asyncio.AbstractEventLoop,
    clients: Sequence[TritonClient],
    variant: Variant,
    stores: Sequence[SharedMemoryStore | MessageStore],
) -> Iterator[list[ServerEndpoint]]:
    async def connect() -> list[AnyChannel]:
        return [await open_channel(client.server, job.timeout_s) for client in clients]

    async def close() -> None:
        for channel in channels:
            await channel.close()

    channels = asyncio.run_coroutine_threadsafe(connect(), loop).result()
    try:
        yield [
            ServerEndpoint(client, channel, store, variant, job.timeout_s)
            for client, channel, store in zip(clients, channels, stores, strict=True)
        ]
    finally:
        asyncio.run_coroutine_threadsafe(close(), loop).result()


@contextlib.contextmanager
def _processes(
    job: Job, loop: asyncio.AbstractEventLoop, transports: Sequence[str]
) -> Iterator[list[ProcessEndpoint]]:
    processes: list[ProcessEndpoint] = []
    try:
        for number in range(job.processes):
            server = number % len(job.servers)
            assignment = Assignment(
                server=job.servers[server],
                entry=job.entry,
                entry_dir=job.entry_dir,
                samples=job.samples,
                segment=job.segment if transports[server] == SharedMemoryStore.transport else "",
                batch=job.client_batch,
                timeout_s=job.timeout_s,
            )
            processes.append(ProcessEndpoint(loop, assignment))
        yield processes
    finally:
        for process in processes:
            process.close()

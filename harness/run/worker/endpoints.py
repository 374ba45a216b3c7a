"""Who sends a test's requests: this process, or client processes that it starts."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.answers.payloads import decoder
from harness.machine.kernel import cpu_seconds, peak_rss_bytes
from harness.models.spec import Variant
from harness.run.worker.client_process import Assignment, ProcessEndpoint, ProcessStore
from harness.run.worker.job import Job
from harness.run.worker.qsl import MessageStore, SampleStore, SharedMemoryStore, open_store
from harness.run.worker.sut import Endpoint, ServerEndpoint, Slot
from harness.triton.channels import AnyChannel, open_channel
from harness.triton.client import TritonClient
from harness.triton.messages import ResponseReader


@dataclass(frozen=True)
class Crew:
    """Endpoints that share loaded samples, on one event loop."""

    loop: asyncio.AbstractEventLoop
    endpoints: Sequence[Endpoint]
    store: SampleStore
    answer_now: Callable[[Slot], Sequence[int]] | None = None
    """Answers on the calling thread, where one request at a time is all there is."""
    processes: Sequence[int] = ()
    """Ids of the client processes."""

    def cpu_seconds(self) -> float:
        """CPU time used so far, of this process and the client processes."""
        return sum(map(cpu_seconds, (os.getpid(), *self.processes)))

    def peak_rss_bytes(self) -> int:
        """Most memory that each of these processes ever had, added up."""
        return sum(map(peak_rss_bytes, (os.getpid(), *self.processes)))


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
def crew_of(job: Job, clients: Sequence[TritonClient], variant: Variant, total: int) -> Iterator[Crew]:
    """Connect to the servers of a job, whose data set has `total` samples; all is closed in the end.

    Raises:
        ServerError: samples cannot travel as the job wants.
    """
    # MultiStream repeats samples at the end, so that a query may start at any of them.
    rows = min(job.plan.performance_sample_count, total) + job.plan.samples_per_query - 1
    store = open_store(
        clients,
        job.entry,
        variant,
        transport=job.transport,
        name=job.segment,
        rows=rows,
        batch=job.client_batch,
    )
    with contextlib.closing(store), event_loop() as loop:
        if job.processes == 1:
            with _own_endpoints(job, loop, clients, variant, store) as endpoints:
                is_one = len(endpoints) == job.in_flight == 1
                yield Crew(loop, endpoints, store, endpoints[0].answer_now if is_one else None)
        else:
            with _processes(job, loop, rows, is_shared=isinstance(store, SharedMemoryStore)) as processes:
                pids = [process.pid for process in processes]
                by_message = ProcessStore(processes) if isinstance(store, MessageStore) else store
                yield Crew(loop, processes, by_message, processes=pids)


@contextlib.contextmanager
def _own_endpoints(
    job: Job,
    loop: asyncio.AbstractEventLoop,
    clients: Sequence[TritonClient],
    variant: Variant,
    store: SharedMemoryStore | MessageStore,
) -> Iterator[list[ServerEndpoint]]:
    async def connect() -> list[AnyChannel]:
        return [await open_channel(job.rpc, client.url, job.timeout_s) for client in clients]

    async def close() -> None:
        for channel in channels:
            await channel.close()

    channels = asyncio.run_coroutine_threadsafe(connect(), loop).result()
    try:
        yield [
            ServerEndpoint(
                client,
                channel,
                store,
                ResponseReader(variant.requested_outputs),
                decoder(variant),
                job.timeout_s,
            )
            for client, channel in zip(clients, channels, strict=True)
        ]
    finally:
        asyncio.run_coroutine_threadsafe(close(), loop).result()


@contextlib.contextmanager
def _processes(
    job: Job, loop: asyncio.AbstractEventLoop, rows: int, *, is_shared: bool
) -> Iterator[list[ProcessEndpoint]]:
    processes: list[ProcessEndpoint] = []
    try:
        for number in range(job.processes):
            assignment = Assignment(
                url=job.urls[number % len(job.urls)],
                entry=job.entry,
                entry_dir=job.entry_dir,
                samples=job.samples,
                segment=job.segment if is_shared else "",
                rows=rows,
                batch=job.client_batch,
                timeout_s=job.timeout_s,
                rpc=job.rpc,
            )
            processes.append(ProcessEndpoint(loop, assignment))
        yield processes
    finally:
        for process in processes:
            process.close()

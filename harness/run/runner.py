"""One invocation: prepare, bring the server up, run each scenario's tests, judge, write results."""

import contextlib
import dataclasses
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.answers import boxes
from harness.errors import ConfigError, HarnessError, InferenceError
from harness.machine import files, paths
from harness.machine.host import load
from harness.machine.host.load import Load
from harness.machine.host.watch import Before, Watch
from harness.machine.kernel import SHM_DIR
from harness.machine.processes import start_module
from harness.models import in_use, manifest
from harness.models.live_config import settings_of
from harness.run import progress, sweep
from harness.run.borrowing import borrowed, places, segment_prefix
from harness.run.config import settings
from harness.run.config.options import OPTIONS
from harness.run.config.run_config import RunConfig, RunMode
from harness.run.config.scenario import ScenarioPlan, scenarios_of
from harness.run.config.tuning import SERVERS_OWN, Tuning, as_served
from harness.run.entries.elsewhere import lacks_frameworks
from harness.run.judgement import Ended, Occasion, judge, new_invocation
from harness.run.mlperf import figures, logs, verdict
from harness.run.mlperf.plan import Mode, Plan
from harness.run.mlperf.rate_search import Search, confirming_rates
from harness.run.mlperf.rounds import Scenario
from harness.run.preparation import Prepared, prepare
from harness.run.results.result import (
    SEARCH_FOLDER,
    Result,
    Server,
    Unmeasured,
    test_folder,
    write_result,
)
from harness.run.server_rate import Searcher
from harness.run.servers import every_server, has_our_files, servers
from harness.run.serving import (
    ModelLoader,
    check_alike,
    check_served,
    executed_precision,
    processes_of,
    triton_version,
)
from harness.run.telemetry import watch as telemetry
from harness.run.truth import Truths
from harness.run.worker import books
from harness.run.worker.job import Job, Outcome, read_outcome, read_status
from harness.triton.client import TritonClient, is_on_this_host

logger = logging.getLogger(__name__)

_REQUEST_TIMEOUT_S = 120.0
"""After which a request counts as lost; far above any batch on any machine that one would benchmark."""

_MODES = {
    RunMode.PERFORMANCE: (Mode.PERFORMANCE,),
    RunMode.ACCURACY: (Mode.ACCURACY,),
    RunMode.SUBMISSION: (Mode.PERFORMANCE, Mode.ACCURACY),
    RunMode.FIND_PEAK: (Mode.FIND_PEAK,),
}


def run(config: RunConfig, invocation: str = "") -> Iterator[Result]:
    """Carry out an invocation; yields a result as each scenario (and Server bound) ends.

    Args:
        config: the request.
        invocation: that it is a part of; it is one of its own if not given.

    Raises:
        HarnessError: the next scenario could not be measured.
    """
    files.check_writable(config.output.output)
    files.check_writable(config.data.cache, "samples", "--cache")
    for address in every_server(config.server.servers):
        # Which otherwise would be found out once a model was exported, after minutes.
        with TritonClient(address) as client:
            client.check_is_triton()
    with _entry_kept(config):
        yield from _measured(config, invocation or new_invocation())


def _entry_kept(config: RunConfig) -> contextlib.AbstractContextManager[None]:
    """See that the entry of a user's file is not replaced meanwhile."""
    if not config.choice.is_user_file:
        return contextlib.nullcontext()
    return in_use.hold(paths.MODEL_REPOSITORY, Path(config.choice.weights))


def _measured(config: RunConfig, invocation: str) -> Iterator[Result]:
    """The results of an invocation, one by one."""
    with Before(invocation) as before:
        prepared = prepare(config)
    with servers(config) as (addresses, are_own), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(TritonClient(address)) for address in addresses]
        for client in clients:
            client.check_is_triton()
        by_place = {} if are_own else dict(zip(places(addresses), clients, strict=True))
        loans = {}
        # Always in one order: another run may borrow the same ones.
        for place in sorted(by_place):
            client = by_place[place]
            loans[client] = stack.enter_context(borrowed(client, prepared.served, place))
        loaders = [
            ModelLoader(
                client, prepared.served, loans.get(client), has_our_files=has_our_files(client.server)
            )
            for client in clients
        ]
        truths = Truths(prepared)
        if Mode.ACCURACY in _modes(config) and lacks_frameworks(config):
            # Where the source framework is the truth, it is missed now, and not after the measurement.
            _ = truths.exact
        for test in scenarios_of(config):
            yield _run_scenario(prepared, truths, loaders, test, before)


def run_all(configs: Sequence[RunConfig]) -> Iterator[Result | Unmeasured]:
    """Carry out several invocations on one server; one that cannot be carried out does not end the others.

    Raises:
        HarnessError: no server.
    """
    files.check_writable(configs[0].output.output)
    invocation = new_invocation()
    with servers(configs[0]) as (addresses, _):
        urls = tuple(address.url for address in addresses)
        for config in sweep.announced(configs, logger.info):
            try:
                if not config.server.urls:
                    server = dataclasses.replace(config.server, urls=urls)
                    config = dataclasses.replace(config, server=server)
                yield from run(config, invocation)
            except HarnessError as error:
                logger.error("%s on %s: %s", config.model, config.platform, error)
                yield Unmeasured(config.model, config.platform.value, error)


def _run_scenario(
    prepared: Prepared,
    truths: Truths,
    loaders: Sequence[ModelLoader],
    test: ScenarioPlan,
    before: Before,
) -> Result:
    """Load the model as the scenario wants it, run its tests, write its results."""
    config, variant, scenario = prepared.config, prepared.manifest.variant, test.scenario
    clients = [loader.client for loader in loaders]
    version = triton_version(clients)
    manifest.check_unchanged(prepared.manifest, prepared.entry_dir)
    live, tuning = _set_up(prepared, loaders, test)
    precision = executed_precision(clients, prepared.served, variant, config.choice.precision)
    folder = _new_folder(config, prepared.manifest.entry, scenario)

    def job(mode: Mode) -> Job:
        plan = test.plan(mode, len(prepared.dataset.samples))
        logger.info("%s %s: %s", scenario, mode, _length(plan))
        made = job_of(prepared, clients, plan, tuning, test_folder(folder, mode), precision)
        return dataclasses.replace(made, ends_early=test.ends_early(plan))

    before.tell()
    outcomes, search = _run_tests(test, job, clients, folder)
    outcomes = _checked_unchanged(clients, prepared.served, live, outcomes)
    for missing in {one.missing for outcome in outcomes.values() for one in outcome.telemetry} - {""}:
        logger.log(logging.WARNING if config.server.metrics_urls else logging.INFO, "%s", missing)
    server = Server(
        version=version,
        urls=tuple(client.url for client in clients),
        rpc=clients[0].server.rpc,
        entry=prepared.served,
        config=live[0],
        is_config_ours=tuning.server_origin != SERVERS_OWN,
        not_applied=_not_applied(config, tuning),
        is_on_this_machine=all(is_on_this_host(client.server) for client in clients),
        client_processes=config.server.client_processes,
        tuning=dataclasses.asdict(tuning),
    )
    occasion = Occasion(before.invocation, before.others)
    ended = Ended(folder, outcomes, tuning, server, precision, search, occasion)
    result = judge(prepared, truths, test, ended)
    path = write_result(result)
    if result.accuracy and variant.detection:
        _save_images(prepared, truths, folder)
    logger.info("%s %s: %s", scenario, result.word, path)
    return result


def _modes(config: RunConfig) -> tuple[Mode, ...]:
    """The tests of one scenario, in their order."""
    modes = _MODES[config.request.mode]
    if (config.request.accuracy or config.output.save_images) and Mode.ACCURACY not in modes:
        return (*modes, Mode.ACCURACY)
    return modes


def _run_tests(
    test: ScenarioPlan, job: Callable[[Mode], Job], clients: Sequence[TritonClient], folder: Path
) -> tuple[dict[Mode, Outcome], Search | None]:
    """One scenario's tests by mode, until one fails; and how Server's rate was found, where it was."""
    modes = _modes(test.config)

    def run(job: Job) -> Outcome:
        Path(job.log_dir).mkdir(parents=True)
        with telemetry.watching(job.servers, job.entry) as watch:
            outcome = run_test(job, clients, watch.test_began)
        loads.append(outcome.load)
        found = watch.result(outcome.test_s, Path(job.log_dir))
        return dataclasses.replace(outcome, telemetry=found)

    def searched(outcome: Outcome) -> Outcome:
        return dataclasses.replace(outcome, load=load.after(outcome.load, loads[:-1]))

    loads: list[Load | None] = []
    outcomes: dict[Mode, Outcome] = {}
    search: Search | None = None
    for mode in modes:
        if mode == Mode.PERFORMANCE and test.is_searched:
            searcher = Searcher(job(mode), folder / SEARCH_FOLDER, run)
            outcomes[mode] = searched(searcher.find())
            search = searcher.result()
        else:
            outcomes[mode] = run(job(mode))
        if outcomes[mode].error:
            break
        if mode == Mode.FIND_PEAK and (peak := verdict.peak(logs.read_detail(test_folder(folder, mode)))):
            searcher = Searcher(job(Mode.PERFORMANCE), folder / SEARCH_FOLDER, run)
            # First, since it is the one that counts.
            confirmed = searched(searcher.confirm(confirming_rates(peak)))
            outcomes = {Mode.PERFORMANCE: confirmed, **outcomes}
            search = searcher.result()
    return outcomes, search


def _set_up(
    prepared: Prepared, loaders: Sequence[ModelLoader], test: ScenarioPlan
) -> tuple[list[dict[str, Any]], Tuning]:
    """Have the model served for the scenario: its live configuration at each server, and what follows."""
    config, facts = prepared.config, prepared.manifest
    wish = test.tuning(facts.variant, [loader.client.server for loader in loaders])
    is_own = config.server.served_name in (None, facts.entry)
    origins = [
        loader.set_up(config.server.server_config, facts.variant, wish.server, is_own=is_own)
        for loader in loaders
    ]
    live = [check_served(loader.client, prepared.served, facts.variant) for loader in loaders]
    check_alike([loader.client for loader in loaders], prepared.served, live)
    served = [settings_of(one, facts.variant.platform.facts) for one in live]
    tuning = as_served(
        wish,
        served,
        test.scenario,
        samples_per_query=int(test.samples_per_query.value),
        # Where one server does not follow, what is reported is not what was asked for.
        server_origin=max(origins, key=lambda origin: origin == SERVERS_OWN),
        in_flight=config.server.in_flight,
    )
    if tuning.server_origin:
        own = tuning.server
        logger.info(
            "%s is measured with %s: %s, batches of up to %d, queue delay %d us",
            *(prepared.served, tuning.server_origin, figures.counted(own.instances, "instance")),
            *(max(1, own.max_batch_size), own.max_queue_delay_us),
        )
    if left_out := _not_applied(config, tuning):
        logger.warning("not applied by %s: %s", tuning.server_origin, ", ".join(left_out))
    return live, tuning


def _not_applied(config: RunConfig, tuning: Tuning) -> tuple[str, ...]:
    """What was asked of a server that has other settings, as it was typed."""
    fields = config.fields()
    given = {name: fields[OPTIONS[name].field or name] for name in settings.not_applied(config, tuning)}
    return tuple(
        f"{OPTIONS[name].flags[0]} {','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in given.items()
    )


def _checked_unchanged(
    clients: Sequence[TritonClient],
    entry: str,
    live: Sequence[dict[str, Any]],
    outcomes: dict[Mode, Outcome],
) -> dict[Mode, Outcome]:
    """Fail the tests if somebody else gave the model other settings while they ran."""
    if any(outcome.error for outcome in outcomes.values()):
        return outcomes  # The server may be stopped, and let every question wait for its deadline.
    for client, before in zip(clients, live, strict=True):
        try:
            is_changed = client.model_config(entry) != before
        except HarnessError as gone:
            # After the last answer that takes nothing back.
            logger.warning("%s", gone)
            continue
        if is_changed:
            error = (
                f"another client changed the settings of {entry} on {client.url} during the test: run again"
            )
            return {mode: dataclasses.replace(outcome, error=error) for mode, outcome in outcomes.items()}
    return outcomes


def _save_images(prepared: Prepared, truths: Truths, folder: Path) -> None:
    """Draw what the accuracy test found into the first images, with the truth beside it."""
    # Takes OpenCV, without which no detector's samples could have been made.
    from harness.answers import drawing

    detection = prepared.manifest.variant.detection
    assert detection is not None
    payloads = logs.read_accuracy(test_folder(folder, Mode.ACCURACY))
    pictures = drawing.save_pictures(
        folder / "pictures",
        prepared.dataset,
        payloads,
        prepared.config.output.save_images or boxes.IN_EVERY_REPORT,
        is_contiguous=detection.is_contiguous,
        truth=truths.exact.annotations,
    )
    logger.info("%d pictures: %s", len(pictures), folder / "pictures")


def _length(plan: Plan) -> str:
    if plan.mode == Mode.ACCURACY:
        return "every sample once"
    unit = ("sample", "samples") if plan.scenario == Scenario.OFFLINE else ("query", "queries")
    return f"at least {plan.min_duration_ms / 1000:g} s and {figures.counted(plan.min_query_count, *unit)}"


def job_of(
    prepared: Prepared,
    clients: Sequence[TritonClient],
    plan: Plan,
    tuning: Tuning,
    log_dir: Path,
    precision: str | None = None,
) -> Job:
    """All that the worker must know of one test; `precision` as `serving.executed_precision` gives it."""
    config = prepared.config
    return Job(
        servers=tuple(client.server for client in clients),
        processes=config.server.client_processes,
        entry=prepared.served,
        entry_dir=str(prepared.entry_dir),
        graph_sha256=prepared.manifest.graph_sha256,
        samples=str(prepared.samples),
        log_dir=str(log_dir),
        outcome=str(log_dir / "outcome.json"),
        transport=config.server.transport,
        segment=f"{segment_prefix()}{time.monotonic_ns()}",
        client_batch=tuning.client_batch,
        in_flight=tuning.in_flight,
        timeout_s=_REQUEST_TIMEOUT_S + plan.min_duration_ms / 1000,
        plan=plan,
        has_hint=ScenarioPlan(config, plan.scenario).rate is not None,
        precision=precision,
        tolerance=config.choice.tolerance,
    )


def run_test(
    job: Job, clients: Sequence[TritonClient], began: Callable[[float], None] = lambda _: None
) -> Outcome:
    """Run LoadGen in a process of its own, which ends with this one, and check who answered.

    Args:
        job: the test.
        clients: of its servers: by them the model was loaded.
        began: called once LoadGen has begun, with how long ago that is, in seconds.

    Raises:
        ServerError: a server gives no statistics.
    """
    before = books.seen(clients, job.entry)
    outcome = _run_worker(job, clients, began)
    failure = outcome.error or outcome.failures.first
    why = books.other_server(failure, job.segment, clients, job.entry)
    if not failure and outcome.books:
        why = books.unseen(clients, job.entry, before, outcome.books)
    return dataclasses.replace(outcome, error=why) if why else outcome


def _run_worker(job: Job, clients: Sequence[TritonClient], began: Callable[[float], None]) -> Outcome:
    """Run the test, in a process that may die."""
    served_by, why_unknown = processes_of(job.servers)
    watch = Watch({os.getpid(), *served_by}, why_unknown)

    def begins(ago_s: float) -> None:
        began(ago_s)
        watch.restart()

    job_file = Path(job.log_dir) / "job.json"
    files.write(job_file, json.dumps(dataclasses.asdict(job), indent=2))
    level = logging.getLevelName(logging.getLogger().getEffectiveLevel())
    reading, writing = os.pipe()
    statuses = os.fdopen(reading, encoding="utf-8")
    with os.fdopen(writing, "wb"):
        worker = start_module(
            "harness.run.worker",
            *(str(job_file), str(writing)),
            # LoadGen prints to stdout, which is for results.
            stdout=sys.stderr,
            environment={"HARNESS_LOG": level},
            pass_fds=(writing,),
        )
    try:
        with watch:
            # They end with the worker.
            started = progress.with_start(map(read_status, statuses), begins)
            progress.show(job.plan, started, lambda: logs.peak_search(Path(job.log_dir)))
            worker.wait()
    finally:
        statuses.close()
        worker.kill()
        worker.wait()
        # A worker that was killed could not: its memory must not stay mapped in a server that lives on.
        if worker.returncode:
            for client in clients:
                client.unregister_shared_memory(job.segment)
            (SHM_DIR / job.segment).unlink(missing_ok=True)
    try:
        return dataclasses.replace(read_outcome(Path(job.outcome)), load=watch.load)
    except InferenceError as error:
        return Outcome(error=str(error))


def _new_folder(config: RunConfig, entry: str, scenario: Scenario) -> Path:
    """A results folder of this scenario's own."""
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}_{entry}_{scenario}"
    for number in range(1, 1000):
        folder = config.output.output / (stem if number == 1 else f"{stem}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise ConfigError(f"{config.output.output} has a thousand results of this second")

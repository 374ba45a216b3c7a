"""One invocation: prepare, bring the server up, run each scenario's tests, judge, write results."""

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import drawing, loadgen, manifest, paths, results, server
from harness.client import TritonClient, is_on_this_host
from harness.config import RunConfig, RunMode, cpu_count
from harness.errors import ConfigError, HarnessError, InferenceError
from harness.judgement import judge
from harness.loadgen import Mode, Plan
from harness.model_config import model_config, to_json
from harness.preparation import Prepared, prepare
from harness.processes import start_module
from harness.results import Result, Unmeasured
from harness.rounds import QUICK_MIN_QUERIES, Rules, Scenario, rules
from harness.serving import ModelLoader, borrowed, check_served
from harness.supervisor import SHM_DIR
from harness.tuning import Tuning, tune
from harness.worker import Job, Outcome, read_outcome

logger = logging.getLogger(__name__)

_REQUEST_TIMEOUT_S = 120.0
"""After which a request counts as lost; far above any batch on any machine that one would benchmark."""

_MODES = {
    RunMode.PERFORMANCE: (Mode.PERFORMANCE,),
    RunMode.ACCURACY: (Mode.ACCURACY,),
    RunMode.SUBMISSION: (Mode.PERFORMANCE, Mode.ACCURACY),
    RunMode.FIND_PEAK: (Mode.FIND_PEAK,),
}


def run(config: RunConfig) -> Iterator[Result]:
    """Carry out an invocation; yields a result as each scenario (and Server bound) ends.

    Raises:
        HarnessError: the next scenario could not be measured.
    """
    _check_writable(config.output)
    prepared = prepare(config)
    with _server(config) as (url, is_own), TritonClient(url) as client:
        client.check_is_triton()
        leave_as_found = contextlib.nullcontext() if is_own else borrowed(client, prepared.manifest.entry)
        with leave_as_found:
            yield from _run_scenarios(prepared, client)


def run_all(configs: Sequence[RunConfig]) -> Iterator[Result | Unmeasured]:
    """Carry out several invocations on one server; one that cannot be carried out does not end the others.

    Raises:
        HarnessError: no server.
    """
    _check_writable(configs[0].output)
    with _server(configs[0]) as (url, _):
        for config in configs:
            try:
                yield from run(dataclasses.replace(config, url=url))
            except HarnessError as error:
                logger.error("%s on %s: %s", config.model, config.platform, error)
                yield Unmeasured(config.model, config.platform.value, error)


def _run_scenarios(prepared: Prepared, client: TritonClient) -> Iterator[Result]:
    config = prepared.config
    loader = ModelLoader(client, prepared.manifest.entry)
    for scenario in config.scenarios:
        for bound_s in (config.max_latency_s if scenario == Scenario.SERVER else ()) or (None,):
            yield _run_scenario(prepared, client, loader, scenario, bound_s)


@contextlib.contextmanager
def _server(config: RunConfig) -> Iterator[tuple[str, bool]]:
    """The server to measure, and whether it is ours: given, running, or started for as long as this takes."""
    running = None if config.url else server.running()
    if running and running.repository != paths.MODEL_REPOSITORY:
        logger.info("the running server serves %s: starting another one", running.repository)
        running = None
    if config.url or running:
        url = config.url or (running.grpc_url if running else "")
        logger.info("using the server at %s", url)
        yield url, False
        return
    for leftover in paths.STATE_DIR.glob("server-*"):
        # Of a run that was killed; its server has ended with it.
        if not Path(f"/proc/{leftover.name.removeprefix('server-')}").exists():
            server.stop(state_dir=leftover)
            shutil.rmtree(leftover, ignore_errors=True)
    state_dir = paths.STATE_DIR / f"server-{os.getpid()}"
    info = server.start(paths.MODEL_REPOSITORY, die_with_parent=True, state_dir=state_dir)
    try:
        yield info.grpc_url, True
    finally:
        server.stop(info, state_dir=state_dir)
        shutil.rmtree(state_dir, ignore_errors=True)


def _run_scenario(
    prepared: Prepared, client: TritonClient, loader: ModelLoader, scenario: Scenario, bound_s: float | None
) -> Result:
    """Load the model as the scenario wants it, run its tests, write its results."""
    config, entry, variant = prepared.config, prepared.manifest.entry, prepared.manifest.variant
    rule = rules(config.round, config.spec, scenario)
    tuning = _tuning(prepared, client, rule, scenario)
    version = client.check_is_triton().get("version")
    manifest.check_unchanged(prepared.manifest, prepared.entry_dir)
    is_ours = loader.load(to_json(model_config(entry, variant, tuning.server)))
    live = check_served(client, entry, variant, tuning)
    folder = _new_folder(config, entry, scenario)
    modes = _MODES[config.mode]
    if (config.accuracy or config.save_images) and Mode.ACCURACY not in modes:
        modes = (*modes, Mode.ACCURACY)
    outcomes: dict[Mode, Outcome] = {}
    for mode in modes:
        plan = _plan(prepared, scenario, mode, rule, bound_s)
        log_dir = results.log_dir(folder, mode)
        log_dir.mkdir(parents=True)
        logger.info("%s %s: %s", scenario, mode, _length(plan))
        outcomes[mode] = _run_test(prepared, client, plan, tuning, log_dir)
        if outcomes[mode].error:
            break
    outcomes = _checked_unchanged(client, entry, live, outcomes)
    result = judge(prepared, scenario, rule, folder, outcomes)
    server_details = {
        "version": version,
        "url": client.url,
        "config": live,
        "is_config_ours": is_ours,
        "tuning": dataclasses.asdict(tuning),
    }
    path = results.write(result, server_details)
    if config.save_images and result.accuracy:
        _save_images(prepared, folder)
    logger.info("%s %s: %s", scenario, result.verdict, path)
    return result


def _checked_unchanged(
    client: TritonClient, entry: str, live: dict[str, Any], outcomes: dict[Mode, Outcome]
) -> dict[Mode, Outcome]:
    """Fail the tests if somebody else gave the model other settings while they ran."""
    try:
        is_changed = client.model_config(entry) != live
    except HarnessError as gone:
        # After the last answer that takes nothing back.
        logger.warning("%s", gone)
        return outcomes
    if not is_changed:
        return outcomes
    error = f"another client changed the settings of {entry} on {client.url} during the test: run again"
    return {mode: dataclasses.replace(outcome, error=error) for mode, outcome in outcomes.items()}


def _save_images(prepared: Prepared, folder: Path) -> None:
    """Draw what the accuracy test found into the first images."""
    detection = prepared.manifest.variant.detection
    assert detection is not None
    payloads = loadgen.read_accuracy(results.log_dir(folder, Mode.ACCURACY))
    pictures = drawing.save_pictures(
        folder / "pictures",
        prepared.dataset,
        payloads,
        prepared.config.save_images,
        is_contiguous=detection.is_contiguous,
    )
    logger.info("%d pictures: %s", len(pictures), folder / "pictures")


def _tuning(prepared: Prepared, client: TritonClient, rule: Rules, scenario: Scenario) -> Tuning:
    config = prepared.config
    own_cpus = cpu_count() if is_on_this_host(client.url) and config.device != "gpu" else 0
    return tune(
        prepared.manifest.variant,
        scenario,
        threads=config.threads or own_cpus,
        samples_per_query=rule.samples_per_query,
        max_batchsize=config.max_batchsize,
        device=config.device,
    )


def _plan(prepared: Prepared, scenario: Scenario, mode: Mode, rule: Rules, bound_s: float | None) -> Plan:
    """The round's rules, shortened where the user asked for that."""
    config = prepared.config
    duration_ms, queries = rule.min_duration_ms, rule.min_query_count
    if config.time_s is not None:
        duration_ms, queries = max(1, int(config.time_s * 1000)), QUICK_MIN_QUERIES[scenario]
    elif config.count is not None:
        # A quick run asks every sample about once; else --count is the reference's: so many queries.
        duration_ms, queries = 0, config.count
        if config.is_quick:
            queries = -(-config.count // rule.samples_per_query)
    return Plan(
        scenario=scenario,
        mode=mode,
        min_duration_ms=duration_ms,
        min_query_count=queries,
        performance_sample_count=min(rule.performance_sample_count, len(prepared.dataset.samples)),
        samples_per_query=rule.samples_per_query,
        server_target_latency_ns=int(bound_s * 1e9) if bound_s else rule.server_target_latency_ns,
        qsl_seed=rule.qsl_seed,
        sample_index_seed=rule.sample_index_seed,
        schedule_seed=rule.schedule_seed,
        target_qps=config.qps or 1.0,
    )


def _length(plan: Plan) -> str:
    if plan.mode == Mode.ACCURACY:
        return "every sample once"
    unit = "samples" if plan.scenario == Scenario.OFFLINE else "queries"
    return f"at least {plan.min_duration_ms / 1000:g} s and {plan.min_query_count} {unit}"


def _run_test(prepared: Prepared, client: TritonClient, plan: Plan, tuning: Tuning, log_dir: Path) -> Outcome:
    """Run LoadGen in a process of its own, which ends with this one."""
    config = prepared.config
    is_paced = plan.scenario in (Scenario.SERVER, Scenario.OFFLINE)
    job = Job(
        url=client.url,
        entry=prepared.manifest.entry,
        entry_dir=str(prepared.entry_dir),
        graph_sha256=prepared.manifest.graph_sha256,
        samples=str(prepared.samples),
        log_dir=str(log_dir),
        outcome=str(log_dir / "outcome.json"),
        transport=config.transport,
        segment=f"mlperf-samples-{os.getpid()}-{time.monotonic_ns()}",
        client_batch=tuning.client_batch,
        in_flight=tuning.in_flight,
        timeout_s=_REQUEST_TIMEOUT_S + plan.min_duration_ms / 1000,
        plan=plan,
        has_hint=config.qps is not None and is_paced,
    )
    job_file = log_dir / "job.json"
    job_file.write_text(json.dumps(dataclasses.asdict(job), indent=2), encoding="utf-8")
    level = logging.getLevelName(logging.getLogger().getEffectiveLevel())
    # LoadGen prints to stdout, which is for results.
    worker = start_module(
        "harness.worker", str(job_file), stdout=sys.stderr, environment={"HARNESS_LOG": level}
    )
    try:
        worker.wait()
    finally:
        worker.kill()
        worker.wait()
        # A worker that was killed could not: its memory must not stay mapped in a server that lives on.
        if worker.returncode:
            client.unregister_shared_memory(job.segment)
            (SHM_DIR / job.segment).unlink(missing_ok=True)
    try:
        return read_outcome(Path(job.outcome))
    except InferenceError as error:
        return Outcome(error=str(error))


def _check_writable(folder: Path) -> None:
    """Find out now, not after ten minutes, whether results can be written."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"cannot write results to {folder}: {error.strerror}; see --output") from error


def _new_folder(config: RunConfig, entry: str, scenario: Scenario) -> Path:
    """A results folder of this scenario's own."""
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}_{entry}_{scenario}"
    for number in range(1, 1000):
        folder = config.output / (stem if number == 1 else f"{stem}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise ConfigError(f"{config.output} has a thousand results of this second")

"""Every option of `python -m harness`: its spellings, its kind of value, its help.

One table for the command line, the configuration file, --dry-run and results.json. Options that the MLPerf
reference has (at the commit of 2019 or today) keep its spelling and its meaning; where a server in between
leaves an option another meaning, or none, its help says so.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from harness.models import MODELS, own_recipes
from harness.models.model_config import DEVICES
from harness.models.platforms import Platform
from harness.models.spec import LARGEST_BATCH, PIXELS, BoxOrder, Layout, Nms, Numbering, Precision
from harness.run.config.run_config import AUTO, DATASETS, KEEP, OURS, TRANSPORTS, RunMode
from harness.run.mlperf.reference import PROFILES
from harness.run.mlperf.rounds import LATEST_ROUND, ROUNDS, Scenario
from harness.triton.rpc import Rpc


class Kind(StrEnum):
    """What an option's value is, as the message about a wrong one says it."""

    FLAG = "true or false"
    WORD = "a text"
    NUMBER = "a number"
    LIST = "a text, a number, or a list of them"
    REPEATED = "a text, or a list of them"
    PATH = "a path"
    FILE_OR_WORD = "a name or a path"
    REFUSED = "refused"


@dataclass(frozen=True)
class Option:
    """One option."""

    name: str
    """In the code and in configuration files; on the command line with dashes."""
    help: str
    kind: Kind = Kind.WORD
    metavar: str = ""
    spellings: tuple[str, ...] = ()
    """On the command line, where it is not the name with dashes; the first is what we call it."""
    field: str = ""
    """Of `RunConfig`, and in results.json, where it is not the name."""

    @property
    def flags(self) -> tuple[str, ...]:
        """How it is spelled on the command line."""
        return self.spellings or (f"--{self.name.replace('_', '-')}",)


def _words(choices: Iterable[str]) -> str:
    return ", ".join(choices)


GROUPS: Mapping[str, tuple[Option, ...]] = MappingProxyType(
    {
        "what to run": (
            Option(
                "model",
                f"{_words(MODELS)}; or a file of such a model: --model-name, --profile or its own name "
                "tells which",
                Kind.FILE_OR_WORD,
                "NAME|FILE",
            ),
            Option("model_name", "which model a file is, or the model itself", metavar="NAME"),
            Option(
                "platform",
                f"framework that serves it: {_words(Platform)}; also the reference's backend words",
                metavar="WORD",
                spellings=("--platform", "--backend"),
            ),
            Option(
                "profile", f"model, platform and data set in a word: {_words(PROFILES)}", metavar="PROFILE"
            ),
            Option(
                "scenario",
                f"one or several of {', '.join(Scenario)} (default SingleStream)",
                Kind.LIST,
                "LIST",
                field="scenarios",
            ),
            Option("mode", f"{_words(RunMode)} (default Performance)", metavar="MODE"),
            Option("accuracy", "add an accuracy test to a performance run", Kind.FLAG),
            Option(
                "find_peak_performance",
                "search the highest Server rate, as --mode does by that name",
                Kind.FLAG,
            ),
            Option(
                "quick",
                "a few samples in every scenario, with accuracy: are the answers right? (exit 0 if they are)",
                Kind.FLAG,
                field="is_quick",
            ),
            Option(
                "all",
                "every model on every platform, or those of --model or --platform, on one server",
                Kind.FLAG,
            ),
        ),
        "the model": (
            Option(
                "weights",
                "auto, seeded, official, or a file of your own (default auto: official if fetched into "
                "$MODEL_DIR)",
                Kind.FILE_OR_WORD,
                "WORD|FILE",
            ),
            Option(
                "nms",
                f"{_words(Nms)}: ssd-resnet34 on pytorch; reference is MLPerf's, bug for bug",
                metavar="WORD",
            ),
            Option(
                "precision",
                f"{_words(Precision)}: openvino; auto (default) is bf16 on CPUs that have it",
                metavar="WORD",
            ),
            Option(
                "tolerance",
                "of a model that the server has in fp16 or int8: how far below the source framework's best "
                "score the winning class may be, in standard deviations of its scores, or how far off scores "
                "and corners of boxes (in bf16: 0.5, 0.1)",
                Kind.NUMBER,
                "X",
            ),
            Option(
                "preprocess",
                f"how images become your file's input (default: the model's): {own_recipes.GRAMMAR}",
                metavar="NAME|KEY=VALUE,...",
            ),
            Option(
                "label_offset",
                "what to add to your classifier's class to get its label (default: -1 if it has 1001 "
                "classes, else 0)",
                Kind.NUMBER,
                "N",
            ),
            Option(
                "classes",
                f"{_words(Numbering)}: what your detector's class numbers are: category ids of the "
                "annotation file, ids less one, places among its categories from 1, or from 0 (default: the "
                "model's)",
                metavar="WORD",
            ),
            Option(
                "boxes",
                f"{_words(BoxOrder)}: what your detector's boxes are; with {PIXELS} behind it where they are "
                "in pixels of its input instead of shares of the image's sides (default: by its names and "
                "answers)",
                metavar=f"WORD[{PIXELS}]",
            ),
            Option(
                "inputs",
                "the input that you expect; it is the model's own that is used, so another one is refused",
                Kind.LIST,
                "LIST",
            ),
            Option(
                "outputs",
                "which outputs of your file to score; of other models, what you expect to be scored: others "
                "are refused",
                Kind.LIST,
                "LIST",
            ),
            Option(
                "data_format",
                f"{_words(Layout)}: the layout that you expect; the model's own is used, so another one is "
                "refused",
                metavar="LAYOUT",
            ),
        ),
        "data": (
            Option(
                "dataset",
                f"{_words(DATASETS)} (default auto: yours if given, else synthetic)",
                metavar="NAME",
            ),
            Option(
                "dataset_path",
                "folder of ImageNet or COCO (default $DATA_DIR; see README)",
                Kind.PATH,
                "DIR",
            ),
            Option(
                "dataset_list", "other labels than DIR's val_map.txt or annotation file", Kind.PATH, "FILE"
            ),
            Option(
                "cache",
                "where preprocessed samples are kept, found again by content (0, as the reference has it: "
                "the default place)",
                Kind.PATH,
                "DIR",
                ("--cache", "--cache_dir"),
            ),
        ),
        "rules, and how to change them": (
            Option(
                "round",
                f"run by the rules of a round, {next(iter(ROUNDS))} to {LATEST_ROUND}; refuses to be changed",
                metavar="ROUND",
            ),
            Option(
                "count",
                "use the first N images; without --time, end after N queries",
                Kind.NUMBER,
                "N",
            ),
            Option(
                "time",
                "shortest duration instead of the round's, as 90 (seconds) or 10m",
                Kind.NUMBER,
                "SECONDS",
                field="time_s",
            ),
            Option("queries_single", "SingleStream: fewest queries", Kind.NUMBER, "N"),
            Option("queries_multi", "MultiStream and Server: fewest queries", Kind.NUMBER, "N"),
            Option("queries_offline", "Offline: fewest samples in its one query", Kind.NUMBER, "N"),
            Option(
                "qps",
                "Server: offered rate (default: the highest that keeps the bound is searched); Offline: "
                "expected rate (default: calibrated)",
                Kind.NUMBER,
                "RATE",
            ),
            Option(
                "max_latency",
                "Server: latency bounds, a run for each, as 0.015 (seconds) or 15ms; no effect on the other "
                "scenarios",
                Kind.LIST,
                "LIST",
                field="max_latency_s",
            ),
            Option(
                "no_early_end",
                "Server: a test at your --qps goes on to its end even when it cannot be VALID any more (by "
                "default it ends then, but with --round and --mode Submission)",
                Kind.FLAG,
            ),
            Option("samples_per_query", "MultiStream: samples of one query (default 8)", Kind.NUMBER, "N"),
            Option(
                "performance_sample_count",
                "samples that performance runs draw from (default: the round's)",
                Kind.NUMBER,
                "N",
            ),
            Option(
                "user_conf",
                "LoadGen's user.conf: target_qps, target_latency, min_duration and the like, by scenario; "
                "options count before it",
                Kind.PATH,
                "FILE",
                ("--user_conf", "--user-conf"),
            ),
        ),
        "server": (
            Option(
                "url",
                "gRPC address of a Triton server, or of several: HOST:PORT, grpcs://HOST:PORT (TLS), "
                "unix:/PATH, or dns:///NAME:PORT (with TLS grpcs+dns:///NAME:PORT) for every server that "
                "the name has (default: $TRITON_URL, else the running one, else one of our own)",
                Kind.LIST,
                "LIST",
                field="urls",
            ),
            Option(
                "tls_ca",
                "grpcs://: certificates of the authorities to trust, in PEM (default: this machine's)",
                Kind.PATH,
                "FILE",
            ),
            Option("tls_cert", "grpcs://: the client's own certificate, in PEM", Kind.PATH, "FILE"),
            Option("tls_key", "grpcs://: the key of that certificate, in PEM", Kind.PATH, "FILE"),
            Option(
                "header",
                "sent with every call, as 'authorization: Bearer $TOKEN', and written nowhere; may be "
                "repeated; $NAME is taken from the environment, @FILE from a file",
                Kind.REPEATED,
                "HEADER",
                field="headers",
            ),
            Option(
                "rpc",
                f"who speaks gRPC: {_words((AUTO, *Rpc))} (auto: own, or grpcio where the address needs it)",
                metavar="WORD",
            ),
            Option(
                "metrics_url",
                "where each server of --url has its metrics, as http://HOST:8002/metrics (default: on the "
                "port after gRPC's); each server of dns:///NAME has its own address in place of HOST",
                Kind.LIST,
                "LIST",
                field="metrics_urls",
            ),
            Option("device", f"{_words(DEVICES)} (auto: the GPUs if the server has any)", metavar="WORD"),
            Option(
                "gpus",
                "which of the server's GPUs have instances, as 0,1 (default: all)",
                Kind.LIST,
                "LIST",
            ),
            Option(
                "instances",
                "instances of the model on each device (default: by scenario)",
                Kind.NUMBER,
                "N",
            ),
            Option(
                "threads",
                "CPU threads that the server may use for the model (default: all); the client needs none, "
                "its requests are under way at once (--in-flight)",
                Kind.NUMBER,
                "N",
            ),
            Option(
                "max_batchsize",
                "most samples in one batch, here and on the server; with a free batch axis also more than "
                f"the model declares, up to {LARGEST_BATCH}",
                Kind.NUMBER,
                "N",
            ),
            Option(
                "preferred_batch",
                "sizes of batches that Triton aims at (default: whatever waits)",
                Kind.LIST,
                "LIST",
            ),
            Option(
                "queue_delay",
                "how long Triton may hold a request back to fill a batch, in microseconds (default: by "
                "scenario)",
                Kind.NUMBER,
                "US",
                field="queue_delay_us",
            ),
            Option(
                "transport",
                f"how samples travel: {_words(TRANSPORTS)} (auto: shared memory if possible)",
                metavar="WORD",
            ),
            Option(
                "in_flight",
                "most requests under way at each server (default: by scenario)",
                Kind.NUMBER,
                "N",
            ),
            Option(
                "client_processes",
                "processes that send the requests (default: this one)",
                Kind.NUMBER,
                "N",
            ),
            Option(
                "server_config",
                f"{KEEP}: measure the model as the server has it set up; {OURS}: with this run's settings; "
                "or with a config.pbtxt, or a part of one, laid over whichever it would be without it "
                "(default: keep what others have loaded, else ours). What is changed is put back",
                Kind.FILE_OR_WORD,
                "WORD|FILE",
            ),
            Option(
                "served_name", "what the server calls the model (default: <model>_<platform>)", metavar="NAME"
            ),
            Option(
                "served_version",
                "which of its versions to ask (default: the server's choice)",
                Kind.NUMBER,
                "N",
            ),
        ),
        "output": (
            Option(
                "output",
                "folder in which results folders are made (default results/), or a file that gets all "
                "scenarios together, as the reference's did",
                Kind.PATH,
                "DIR|FILE.json",
            ),
            Option(
                "save_images",
                "detectors: write N pictures with the boxes that were found",
                Kind.NUMBER,
                "N",
            ),
            Option(
                "label",
                "what to call this run on its page, in the folder's index.html and where it is compared",
                metavar="NAME",
            ),
            Option("anonymous", "leave this machine's name out of results", Kind.FLAG, field="is_anonymous"),
            Option("quiet", "warnings and results only", Kind.FLAG),
            Option("debug", "more log, and tracebacks", Kind.FLAG),
        ),
        "this command line": (
            Option("config", "options from a file, as `name = value` (see below)", Kind.PATH, "FILE.toml"),
            Option(
                "dry_run",
                "print every setting and where it comes from, and stop: nothing is started or written",
                Kind.FLAG,
            ),
        ),
        "options of the reference that are refused, and what to use instead": (
            Option(
                "mlperf_conf",
                "the rules of every round are built in: use --round",
                Kind.REFUSED,
                spellings=("--mlperf_conf", "--mlperf-conf"),
            ),
            Option(
                "audit_conf",
                "would turn a test into another one; compliance tests are not run here: leave it out",
                Kind.REFUSED,
                spellings=("--audit_conf", "--audit-conf"),
            ),
            Option(
                "preprocessed_dir",
                "preprocessed samples have a format of their own here: use --cache",
                Kind.REFUSED,
                spellings=("--preprocessed_dir",),
            ),
            Option(
                "use_preprocessed_dataset",
                "samples that were preprocessed before are always found again: leave it out",
                Kind.REFUSED,
                spellings=("--use_preprocessed_dataset",),
            ),
        ),
    }
)
OPTIONS: Mapping[str, Option] = MappingProxyType(
    {option.name: option for group in GROUPS.values() for option in group}
)

"""A case for every spelling of every option; `python -m tests.unit.run.config.option_cases` prints a table.

`tests/unit/test_options.py` runs each and fails for a spelling that is missing here.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

MODEL = "--model resnet50 --platform onnxruntime"
OWN_FILE = "--model FOLDER/resnet50_v1.pb"
OWN_DETECTOR = "--model FOLDER/run.toml --model-name ssd-mobilenet --platform tflite"
OWN_RECIPE = (
    "own: size=224,resize=linear,crop=0.875,scale=1/255,order=BGR,layout=NHWC; size, layout and type are the "
    "file's where they are not asked for"
)
EVERY = "--scenario SingleStream,MultiStream,Server,Offline"


@dataclass(frozen=True)
class Case:
    """One command line, and what comes of it."""

    option: str
    words: str
    """FOLDER is an existing folder, with `resnet50_v1.pb`, `run.toml` (count = 7), `part.pbtxt` and
    `user.conf` in it."""
    shows: Mapping[str, object] = field(default_factory=dict)
    """Settings of --dry-run; those of a scenario as `Scenario: name`."""
    refusal: str = ""
    """What the one line says, where the option is refused."""


CASES = (
    Case("--model", f"{MODEL}", {"model": "resnet50"}),
    Case("--model", "--model FOLDER/resnet50_v1.pb", {"model": "resnet50", "platform": "tensorflow"}),
    Case("--model", "--model FOLDER/run.toml --platform tensorflow", refusal="is a file: say which model"),
    Case(
        "--model-name",
        "--model FOLDER/run.toml --model-name mobilenet --platform tflite",
        {"model": "mobilenet", "weights": "FOLDER/run.toml"},
    ),
    Case("--platform", "--model resnet50 --platform tflite", {"platform": "tflite"}),
    Case("--backend", "--model resnet50 --backend tf", {"platform": "tensorflow"}),
    Case("--backend", "--model ssd-resnet34 --backend pytorch-native", {"platform": "pytorch"}),
    Case("--backend", "--model resnet50 --backend null", refusal="run.sh limits --null-only"),
    Case("--profile", "--profile resnet50-tf", {"model": "resnet50", "platform": "tensorflow"}),
    Case("--profile", "--profile resnet50-tf --backend tflite", {"platform": "tflite"}),
    Case("--profile", "--profile mobilenet-tf --dataset-path FOLDER", {"dataset": "imagenet_mobilenet"}),
    Case("--profile", "--profile defaults --model mobilenet", {"platform": "tensorflow"}),
    Case("--profile", "--profile resnet50-tf --model mobilenet", refusal="leave one out"),
    Case("--profile", "--profile resnet50-ft", refusal="did you mean resnet50-tf?"),
    Case("--scenario", f"{MODEL} --scenario Server,offline", {"scenario": ["Server", "Offline"]}),
    Case("--mode", f"{MODEL} --mode accuracy", {"mode": "Accuracy"}),
    Case("--accuracy", f"{MODEL} --accuracy", {"accuracy": True}),
    Case(
        "--find-peak-performance",
        f"{MODEL} --scenario Server --find-peak-performance",
        {"mode": "FindPeakPerformance"},
    ),
    Case("--find-peak-performance", f"{MODEL} --find-peak-performance", refusal="use --scenario Server"),
    Case("--quick", f"{MODEL} --quick", {"quick": True, "accuracy": True, "count": 16}),
    Case("--all", "--all --platform tflite", {"model": "resnet50", "images": "synthetic"}),
    Case("--all", "--all --profile resnet50-tf", refusal="--all runs several models: --profile is of one"),
    Case("--weights", f"{MODEL} --weights seeded", {"weights": "seeded"}),
    Case("--nms", "--model ssd-resnet34 --platform pytorch --nms reference", {"nms": "reference"}),
    Case("--precision", "--model resnet50 --platform openvino --precision fp32", {"precision": "fp32"}),
    Case("--tolerance", f"{MODEL} --tolerance 0.05", {"tolerance": 0.05}),
    Case(
        "--preprocess",
        f"{OWN_FILE} --preprocess scale=1/255,order=BGR",
        {"preprocess": "scale=1/255,order=BGR", "preprocessing": OWN_RECIPE},
    ),
    Case(
        "--preprocess",
        "--model FOLDER/resnet50_v1.pb --preprocess imagenet,crop=2",
        refusal="crop is the share",
    ),
    Case("--preprocess", f"{MODEL} --preprocess imagenet", refusal="is for a file of your own"),
    Case("--label-offset", f"{OWN_FILE} --label-offset -1", {"label-offset": -1}),
    Case("--label-offset", f"{OWN_FILE} --label-offset one", refusal="takes a whole number"),
    Case("--label-offset", f"{MODEL} --label-offset 0", refusal="is for a file of your own"),
    Case("--classes", f"{OWN_DETECTOR} --classes 0-79", {"classes": "0-79"}),
    Case("--classes", f"{OWN_DETECTOR} --classes 0-90", refusal="coco, coco-1, 1-80, 0-79"),
    Case("--classes", f"{OWN_FILE} --classes 0-79", refusal="--classes is for detectors"),
    Case("--classes", "--model ssd-mobilenet --platform tflite --classes coco", refusal="of your own"),
    Case("--boxes", f"{OWN_DETECTOR} --boxes XYXY,pixels", {"boxes": "xyxy,pixels"}),
    Case("--boxes", f"{OWN_DETECTOR} --boxes xyxy,percent", refusal="did you mean xyxy,pixels?"),
    Case("--boxes", f"{OWN_FILE} --boxes xywh", refusal="--boxes is for detectors"),
    Case("--inputs", "--profile resnet50-tf --inputs input_tensor:0", {"inputs": ["input_tensor:0"]}),
    Case("--inputs", "--profile resnet50-tf --inputs image", refusal="has the input input_tensor"),
    Case("--outputs", "--profile resnet50-tf --outputs ArgMax:0", {"outputs": ["ArgMax:0"]}),
    Case("--outputs", "--profile resnet50-tf --outputs softmax", refusal="is scored by the outputs ArgMax"),
    Case("--data-format", f"{MODEL} --data-format nchw", {"data-format": "NCHW"}),
    Case("--data-format", f"{MODEL} --data-format NHWC", refusal="takes images as NCHW"),
    Case("--dataset", f"{MODEL} --dataset synthetic", {"dataset": "synthetic", "images": "synthetic"}),
    Case("--dataset-path", f"{MODEL} --dataset-path FOLDER", {"images": "FOLDER"}),
    Case(
        "--dataset-list",
        f"{MODEL} --dataset-path FOLDER --dataset-list FOLDER/list.txt",
        {"dataset-list": "FOLDER/list.txt"},
    ),
    Case("--cache", f"{MODEL} --cache FOLDER", {"cache": "FOLDER"}),
    Case("--cache_dir", f"{MODEL} --cache_dir FOLDER", {"cache": "FOLDER"}),
    Case("--round", f"{MODEL} --round v2.0", {"round": "v2.0", "SingleStream: fewest queries": 1024}),
    Case("--count", f"{MODEL} --count 9", {"count": 9, "SingleStream: fewest queries": 9}),
    Case("--time", f"{MODEL} --time 5", {"SingleStream: shortest duration, s": 5.0}),
    Case(
        "--queries-single",
        f"{MODEL} --queries-single 77",
        {"SingleStream: fewest queries": 77, "SingleStream: shortest duration, s": 600.0},
    ),
    Case(
        "--queries-multi",
        f"{MODEL} {EVERY} --queries-multi 77",
        {
            "MultiStream: fewest queries": 77,
            "Server: fewest queries": 77,
            "SingleStream: fewest queries": 100,
            "Offline: fewest samples": 24576,
        },
    ),
    Case(
        "--queries-offline",
        f"{MODEL} {EVERY} --time 5 --queries-offline 77",
        {"Offline: fewest samples": 77, "Server: fewest queries": 838},
    ),
    Case(
        "--qps",
        f"{MODEL} {EVERY} --qps 20",
        {"Server: offered rate, queries/s": 20.0, "Offline: expected rate, samples/s": 20.0},
    ),
    Case(
        "--max-latency",
        f"{MODEL} --scenario Server --max-latency 200ms,0.1",
        {
            "max-latency": [0.2, 0.1],
            "Server: latency bound, ms": 200.0,
            "Server: latency bound, ms (2)": 100.0,
        },
    ),
    Case(
        "--samples-per-query",
        f"{MODEL} --scenario MultiStream --samples-per-query 4",
        {"MultiStream: samples per query": 4, "MultiStream: client: samples per request": 4},
    ),
    Case(
        "--performance-sample-count",
        f"{MODEL} --performance-sample-count 50",
        {"SingleStream: samples to draw from": 50},
    ),
    Case("--no-early-end", f"{MODEL} --no-early-end", {"no-early-end": True}),
    Case(
        "--user_conf",
        f"{MODEL} {EVERY} --user_conf FOLDER/user.conf",
        {
            "Server: offered rate, queries/s": 30.0,
            "Server: latency bound, ms": 50.0,
            "Offline: expected rate, samples/s": None,
            "Offline: shortest duration, s": 1.5,
        },
    ),
    Case("--user-conf", f"{MODEL} --user-conf FOLDER/run.toml", refusal="run.toml:1: wants `model.scenario"),
    Case(
        "--url",
        f"{MODEL} --url a:1,b:2",
        {"url": ["a:1", "b:2"], "SingleStream: server: threads of each": None},
    ),
    Case(
        "--url",
        f"{MODEL} --url grpcs://localhost:1,unix:/run/b,dns:///localhost:3",
        {"url": ["grpcs://localhost:1", "unix:/run/b", "dns:///localhost:3"]},
    ),
    Case(
        "--url",
        f"{MODEL} --url grpcs+dns:///localhost:4 --tls-ca FOLDER/none",
        refusal="none: No such file",
    ),
    Case("--url", f"{MODEL} --url grpcs+dns:///a:1,a:1", refusal="names one server twice"),
    Case("--url", f"{MODEL} --url https://a:1", refusal="is not HOST:PORT"),
    Case("--url", f"{MODEL} --url unix:b", refusal="is not HOST:PORT"),
    Case("--url", f"{MODEL} --url grpcs://a:1,a:1", refusal="names one server twice"),
    Case("--rpc", f"{MODEL} --rpc grpcio", {"rpc": "grpcio"}),
    Case("--rpc", f"{MODEL} --rpc own --url unix:/run/b", refusal="--rpc own takes HOST:PORT and dns"),
    Case("--tls-ca", f"{MODEL} --url grpcs://a:1 --tls-ca FOLDER/none", refusal="none: No such file"),
    Case("--tls-ca", f"{MODEL} --url grpcs://a:1 --tls-ca FOLDER/run.toml", refusal="has no certificate"),
    Case("--tls-ca", f"{MODEL} --url a:1 --tls-ca FOLDER/run.toml", refusal="add --url grpcs://HOST:PORT"),
    Case("--tls-cert", f"{MODEL} --url grpcs://a:1 --tls-cert FOLDER/run.toml", refusal="are a pair"),
    Case(
        "--tls-key",
        f"{MODEL} --url grpcs://a:1 --tls-cert FOLDER/run.toml --tls-key FOLDER/run.toml",
        refusal="are no certificate and its key",
    ),
    Case("--header", f"{MODEL} --header 'Key: secret'", {"header": ["key: (hidden)"]}),
    Case(
        "--header",
        f"{MODEL} --header 'authorization: Bearer $HOME' --header 'key: @/proc/sys/kernel/ostype'",
        {"header": ["authorization: Bearer $HOME", "key: @/proc/sys/kernel/ostype"]},
    ),
    Case("--header", f"{MODEL} --header secret", refusal="--header is not NAME: VALUE"),
    Case("--header", f"{MODEL} --header 'a: $NOBODY_SETS_THIS'", refusal="$NOBODY_SETS_THIS is not set"),
    Case("--header", f"{MODEL} --header 'a: @FOLDER/none'", refusal="none: No such file"),
    Case("--header", f"{MODEL} --header 'a: 1' --header 'A: 2'", refusal="--header a is given twice"),
    Case("--header", f"{MODEL} --header 'te: 1'", refusal="--header te cannot be set"),
    Case("--header", f"{MODEL} --header a:", refusal="is empty, or not one line of ASCII"),
    Case(
        "--metrics-url",
        f"{MODEL} --url a:1,b:2 --metrics-url http://a:3/metrics,http://b:4/m",
        {"metrics-url": ["http://a:3/metrics", "http://b:4/m"]},
    ),
    Case("--metrics-url", f"{MODEL} --url a:1 --metrics-url a:3", refusal="'a:3' is not http://HOST:PORT"),
    Case(
        "--metrics-url",
        f"{MODEL} --url a:1,b:2 --metrics-url http://a:3",
        refusal="--metrics-url names 1, and --url 2: give as many",
    ),
    Case(
        "--device",
        f"{MODEL} --device gpu --scenario Server",
        {
            "device": "gpu",
            "Server: server: instances": 1,
            "Server: server: largest batch": 64,
            "Server: server: queue delay, us": 1000,
        },
    ),
    Case(
        "--gpus",
        f"{MODEL} --gpus 1,0 --scenario Offline",
        {
            "gpus": [0, 1],
            "device": "gpu",
            "Offline: server: GPUs": [0, 1],
            "Offline: client: requests in flight": 4,
        },
    ),
    Case("--gpus", f"{MODEL} --gpus 0 --device cpu", refusal="--gpus is for GPUs, and --device cpu is not"),
    Case("--gpus", f"{MODEL} --gpus all", refusal="--gpus all is impossible: it takes whole numbers from 0"),
    Case(
        "--instances",
        f"{MODEL} --scenario Offline --instances 7",
        {"Offline: server: instances": 7, "Offline: client: requests in flight": 14},
    ),
    Case("--instances", f"{MODEL} --instances 0", refusal="--instances 0 is impossible"),
    Case("--queue-delay", f"{MODEL} --queue-delay 500", {"SingleStream: server: queue delay, us": 500}),
    Case("--queue-delay", f"{MODEL} --queue-delay 0.5", refusal="takes a whole number from 0 on"),
    Case(
        "--preferred-batch",
        f"{MODEL} --scenario Server --preferred-batch 8,4",
        {"Server: server: preferred batches": [4, 8], "Server: server: largest batch": 8},
    ),
    Case("--preferred-batch", f"{MODEL} --preferred-batch 0", refusal="takes whole numbers from 1 on"),
    Case("--preferred-batch", f"{MODEL} --preferred-batch 8,65537", refusal="from 1 on, up to 65536, as 1,2"),
    Case(
        "--preferred-batch",
        f"{MODEL} --preferred-batch 8 --max-batchsize 4",
        refusal="--preferred-batch 8 is more than --max-batchsize 4",
    ),
    Case("--threads", f"{MODEL} --threads 1", {"SingleStream: server: threads of each": 1}),
    Case(
        "--max-batchsize",
        f"{MODEL} --scenario Offline --max-batchsize 16",
        {"Offline: server: largest batch": 16, "Offline: client: samples per request": 16},
    ),
    Case(
        "--max-batchsize",
        f"{MODEL} --scenario Offline --max-batchsize 2048",
        {"Offline: server: largest batch": 2048, "Offline: client: samples per request": 2048},
    ),
    Case("--max-batchsize", f"{MODEL} --max-batchsize 65537", refusal="above 0, and up to 65536"),
    Case("--transport", f"{MODEL} --transport grpc", {"transport": "grpc"}),
    Case(
        "--transport",
        f"{MODEL} --scenario Offline --device gpu --max-batchsize 65536 --transport grpc",
        {"Offline: server: largest batch": 65536, "Offline: client: samples per request": 3566},
    ),
    Case("--in-flight", f"{MODEL} --in-flight 3", {"SingleStream: client: requests in flight": 3}),
    Case("--client-processes", f"{MODEL} --client-processes 2", {"client-processes": 2}),
    Case("--server-config", f"{MODEL} --server-config Keep", {"server-config": "keep"}),
    Case(
        "--server-config",
        f"{MODEL} --server-config FOLDER/part.pbtxt",
        {
            "server-config": "FOLDER/part.pbtxt",
            "max-batchsize": 4,
            "SingleStream: server: largest batch": 4,
            "SingleStream: server: instances": 1,
        },
    ),
    Case(
        "--server-config", f"{MODEL} --server-config kep", refusal="kep: no such file (nor one of keep, ours)"
    ),
    Case(
        "--server-config",
        f"{MODEL} --server-config FOLDER/run.toml",
        refusal="run.toml is no config.pbtxt: 1:1",
    ),
    Case(
        "--server-config",
        f"{MODEL} --served-name other --server-config FOLDER/part.pbtxt",
        refusal="part.pbtxt is of resnet50_onnxruntime, and the model is called other on the server",
    ),
    Case("--served-name", f"{MODEL} --served-name resnet_prod", {"served-name": "resnet_prod"}),
    Case("--served-name", f"{MODEL} --served-name resnet/3", refusal="its version is --served-version"),
    Case("--served-name", "--all --served-name resnet_prod", refusal="--served-name is of one"),
    Case("--served-version", f"{MODEL} --served-version 3", {"served-version": 3}),
    Case("--served-version", f"{MODEL} --served-version 0", refusal="--served-version 0 is impossible"),
    Case("--output", f"{MODEL} --output FOLDER", {"output": "FOLDER"}),
    Case("--output", f"{MODEL} --output FOLDER/results.json", {"output": "FOLDER/results.json"}),
    Case("--save-images", "--profile ssd-mobilenet-tf --save-images 3", {"save-images": 3}),
    Case("--label", f"{MODEL} --label 'one thread'", {"label": "one thread"}),
    Case("--label", f"{MODEL} --label {'x' * 61}", refusal="takes a line of up to 60 characters"),
    Case("--label", f"{MODEL} --label ''", refusal="--label is empty"),
    Case("--anonymous", f"{MODEL} --anonymous", {"anonymous": True}),
    Case("--quiet", f"{MODEL} --quiet", {"quiet": True}),
    Case("--quiet", f"{MODEL} --quiet --debug", refusal="--debug and --quiet exclude each other"),
    Case("--debug", f"{MODEL} --debug", {"debug": True}),
    Case("--config", f"{MODEL} --config FOLDER/run.toml", {"count": 7}),
    Case("--dry-run", f"{MODEL} --dry-run", {"model": "resnet50"}),
    Case("--mlperf_conf", f"{MODEL} --mlperf_conf mlperf.conf", refusal="use --round"),
    Case("--mlperf-conf", f"{MODEL} --mlperf-conf mlperf.conf", refusal="use --round"),
    Case("--audit_conf", f"{MODEL} --audit_conf audit.config", refusal="compliance tests are not run"),
    Case("--audit-conf", f"{MODEL} --audit-conf audit.config", refusal="compliance tests are not run"),
    Case("--preprocessed_dir", f"{MODEL} --preprocessed_dir x", refusal="use --cache"),
    Case("--use_preprocessed_dataset", f"{MODEL} --use_preprocessed_dataset", refusal="leave it out"),
)


def markdown() -> str:
    """Every option with the test that covers it."""
    lines = ["| Option | Command line | What comes of it |", "| --- | --- | --- |"]
    for case in CASES:
        effect = "; ".join(f"{name} = {value}" for name, value in case.shows.items())
        lines.append(f"| `{case.option}` | `{case.words}` | {effect or f'refused: {case.refusal}'} |")
    return "\n".join(
        [*lines, "", "Each is run by tests/unit/test_options.py::test_an_option_has_its_effect."]
    )


if __name__ == "__main__":
    sys.stdout.write(markdown() + "\n")

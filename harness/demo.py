"""The whole benchmark in a few minutes on any machine: `./run.sh demo`.

MobileNet with seeded weights and synthetic images, so nothing is downloaded: each scenario for a few
seconds with real LoadGen and a real Triton, and the accuracy of serving against the source framework.
"""

import sys

from harness.cli import main
from harness.run.mlperf.rounds import Scenario

DEMO = {
    "--model": "mobilenet",
    "--platform": "onnxruntime",
    "--weights": "seeded",
    "--dataset": "synthetic",
    "--scenario": ",".join(Scenario),
    "--count": "256",
    "--time": "10",
    # MLPerf's 10 ms for MobileNet are out of reach of a slow CPU, whatever the rate; and 100 ms of one whose
    # host now and then does something else for as long.
    "--max-latency": "0.25",
}

if __name__ == "__main__":
    options = [word for pair in DEMO.items() for word in pair]
    sys.exit(main([*options, "--accuracy", *sys.argv[1:]]))

"""Run by test_shared_memory: has a segment named for a moment, in which its parent is killed."""

import os
import sys
import time

from harness.triton.shared_memory import Segment

parent = os.getppid()
with Segment(sys.argv[1], 4096).named():
    os.write(1, b"named\n")
    while os.getppid() == parent:
        time.sleep(0.01)
    os.write(1, b"still there\n")
os.write(1, b"outlived its parent\n")

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from converters import command
from converters.formats import native_output
from harness.machine.paths import PROJECT_ROOT


def test_an_ensured_action_runs_at_the_end_and_after_a_failure():
    done = []
    with command.ensured(lambda: done.append("end")):
        assert done == []
    assert done == ["end"]
    with pytest.raises(KeyError), command.ensured(lambda: done.append("failure")):
        raise KeyError
    assert done == ["end", "failure"]


def test_pending_actions_run_innermost_first_and_ended_blocks_are_forgotten():
    done = []
    with command.on_signal(lambda: done.append("outer")):
        with command.on_signal(lambda: done.append("ended")):
            pass
        with command.on_signal(lambda: done.append("inner")):
            command.run_pending()
    assert done == ["inner", "outer"]


_COMMAND = """
    import pathlib, sys, time
    from converters import command
    temporary = pathlib.Path(sys.argv[1])

    def body():
        temporary.write_text("half")
        with command.ensured(temporary.unlink):
            print("working", flush=True)
            try:
                time.sleep(600)
            except BaseException:
                sys.exit("a library swallowed the interruption")

    sys.exit(command.run(body))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_gets_a_signal_cleans_up_and_exits_130(tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_COMMAND), str(tmp_path / "temporary")],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    os.kill(process.pid, number)
    _, log = process.communicate(timeout=120)
    assert process.returncode == 130
    assert log == "interrupted; what was there before is untouched\n"
    assert list(tmp_path.iterdir()) == []


def test_a_signal_while_the_libraries_are_being_imported_is_one_line_and_130():
    code = """
        import os, runpy, signal, sys

        class Interrupting:
            def find_spec(self, name, *_):
                if name == "numpy":
                    os.kill(os.getpid(), signal.SIGINT)

        sys.meta_path.insert(0, Interrupting())
        runpy.run_module("converters", run_name="__main__", alter_sys=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "interrupted; what was there before is untouched\n")


def test_native_chatter_is_held_back_and_the_descriptor_restored(capfd, caplog):
    with caplog.at_level("DEBUG"), native_output.held_back():
        os.write(2, b"chatter of a native library\n")
    os.write(2, b"ours\n")
    assert capfd.readouterr().err == "ours\n"
    assert "chatter of a native library" in caplog.text


def test_a_signal_while_chatter_is_held_back_is_still_reported():
    code = """
        import sys, time
        from converters import command
        from converters.formats import native_output

        def body():
            with native_output.held_back():
                print("working", flush=True)
                time.sleep(600)

        sys.exit(command.run(body))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=120)[1] == "interrupted; what was there before is untouched\n"

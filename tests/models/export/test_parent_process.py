"""A child that ends with its parent."""

import subprocess
import sys
from pathlib import Path

CHILD = """
import sys, time
from models.export.probe import end_with_parent
end_with_parent(int(sys.argv[1]))
print("lives", flush=True)
time.sleep(20)
print("outlived its parent", flush=True)
"""
#: Starts a child, and is killed as soon as it is told to be.
PARENT = """
import os, signal, subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())])
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""
ROOT = Path(__file__).resolve().parents[3]


def test_a_child_ends_when_its_parent_is_killed():
    command = [sys.executable, "-c", PARENT, CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdin and parent.stdout
        assert parent.stdout.readline() == "lives\n"
        parent.stdin.write("\n")
        parent.stdin.flush()
        assert parent.stdout.read() == ""  # until the last process that could write has ended


def test_a_child_whose_parent_is_dead_already_ends_at_once():
    ended = subprocess.run([sys.executable, "-c", CHILD, "1"], capture_output=True, cwd=ROOT, check=False)

    assert (ended.returncode, ended.stdout) == (-9, b"")

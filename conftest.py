"""Says what takes long: a notebook's cell may train networks for minutes, and would look hung."""

import os
import sys
import threading
import time

import pytest

EVERY = 30  # seconds


def pytest_configure(config):
    if hasattr(config, "workerinput"):  # of pytest-xdist, whose main process says it
        return
    # pytest itself has the screen only between tests: while one runs, what is written is captured.
    screen = os.fdopen(os.dup(sys.__stdout__.fileno()), "w")

    def say(line):
        print(line, file=screen, flush=True)

    config.pluginmanager.register(Progress(say), "progress of long tests")


class Progress:
    """Names every test that is running, and for how long, as often as `every` seconds.

    Args:
        say: is handed each line.
        every: seconds; a test that ends sooner is not named.
    """

    def __init__(self, say, every=EVERY):
        self.say, self.every = say, every
        self.running = {}  # of each test, what ends its watch

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid):
        self.running[nodeid] = over = threading.Event()
        threading.Thread(target=self.watch, args=(nodeid, over), daemon=True).start()

    def pytest_runtest_logfinish(self, nodeid):
        self.running.pop(nodeid).set()

    def watch(self, nodeid, over):
        since = time.monotonic()
        while not over.wait(self.every):
            self.say(f"\n... {nodeid}: {time.monotonic() - since:.0f} s so far")

"""Tests of all modules that were loaded run side by side, as most of their time is waiting for time to pass.

unittest runs one module after the other. The first suite to be run starts the tests of all of them, those first whose
class says that it is `slow`; each suite then waits for its own and tells their results in order.
"""

import concurrent.futures
import os
import threading
import unittest

import paths  # noqa: F401
import parallel

loaded = []
lock = threading.Lock()


class Suite(unittest.TestSuite):
    def __init__(self, tests):
        super().__init__(tests)
        self.kept = {}
        loaded.append(self)

    def run(self, result, debug=False):
        start()
        for test, kept in self.kept.items():
            kept.done.result()
            result.startTest(test)
            for name, arguments in kept.told:
                getattr(result, name)(*arguments)
            result.stopTest(test)
        return result


def start():
    with lock:
        waiting = [(suite, test) for suite in loaded if not suite.kept for test in parallel.flat(suite)]
        waiting.sort(key=lambda one: not getattr(one[1], "slow", False))
        if not waiting:
            return
        pool = concurrent.futures.ThreadPoolExecutor(int(os.environ.get("PARALLEL", "16")))
        for suite, test in waiting:
            suite.kept[test] = kept = parallel.Kept()
            kept.done = pool.submit(test.run, kept)
        # It ends with its last test.
        pool.shutdown(wait=False)


def load_tests(_loader, tests, _pattern):
    return Suite(tests)

"""A test suite whose tests run side by side: these wait far more than they compute."""

import concurrent.futures
import os
import unittest


class Suite(unittest.TestSuite):
    """Each test has a result of its own in a thread; they are told to the common one in order, as they are done."""

    def run(self, result, debug=False):
        tests = list(flat(self))
        with concurrent.futures.ThreadPoolExecutor(int(os.environ.get("PARALLEL", "16"))) as pool:
            kept = {}
            for test in tests:
                kept[test] = Kept()
                kept[test].done = pool.submit(test.run, kept[test])
            for test in tests:
                kept[test].done.result()
                result.startTest(test)
                for name, arguments in kept[test].told:
                    getattr(result, name)(*arguments)
                result.stopTest(test)
        return result


class Kept(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.told = []


for name in ("addSuccess", "addError", "addFailure", "addSkip", "addExpectedFailure", "addUnexpectedSuccess",
             "addSubTest"):
    def keep(self, *arguments, name=name):
        self.told.append((name, arguments))
    setattr(Kept, name, keep)


def flat(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test

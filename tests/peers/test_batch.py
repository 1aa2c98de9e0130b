"""A batch small enough for every commit; `tests/campaign postfix` sends a large one."""

import unittest

import batch


class Batch(unittest.TestCase):
    def test_nothing_is_lost_nothing_comes_twice_nothing_is_damaged(self):
        faults, counts = batch.send_and_compare(200)
        self.assertEqual(faults, [])
        self.assertEqual(counts["copies"], 240)
        self.assertGreater(counts["links_followed"], 1000)

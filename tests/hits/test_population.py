"""Some 2,000 hits of people and machines: labels and counts beside the truth. tests/campaign population is the same
with 100,000."""
import unittest

from crowd import Crowd
from ground import Hits, binary
from play import Play, share_right, show

LEAST = 0.99


class Population(unittest.TestCase):
    def test_labels_and_counts(self):
        server = Hits(binary())
        self.addCleanup(server.close)
        play = Play(server, Crowd(hits=2_000, seconds=12, recipients=50))
        play.run()
        play.settled()
        table, reasons = play.compare()
        print(show(table, reasons))
        ids = play.check_counts()
        for message in play.crowd.messages[:3]:
            self.assertGreater(play.check_events(message.ident, ids[message.ident]), 0)
        self.assertEqual(play.faults[:5], [])
        self.assertEqual(server.lost(), 0)
        self.assertGreaterEqual(play.hits, 2_000)
        self.assertLess(len(play.unsure), play.hits // 100, "the machine is too slow to know what is true")
        self.assertGreaterEqual(share_right(table), LEAST, show(table, reasons))


if __name__ == "__main__":
    unittest.main()

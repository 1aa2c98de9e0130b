"""kill -9 at random moments while 300 hits a second come in; tests/campaign hits-crash does it 50 times."""
import unittest

from ground import Hits, binary
from killing import Rounds, tokens


class Kill(unittest.TestCase):
    def test_what_was_answered_is_recorded_once(self):
        server = Hits(binary())
        self.addCleanup(server.close)
        done = Rounds(server, rounds=3, rate=300, meant=tokens(server, messages=4))
        print(done.summary())
        self.assertEqual(done.faults, [])
        self.assertGreater(len(done.certain), 500)
        self.assertGreater(len(done.doubtful), 100)


if __name__ == "__main__":
    unittest.main()

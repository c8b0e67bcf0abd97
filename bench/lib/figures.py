# SPDX-License-Identifier: GPL-3.0-or-later
"""What was measured: for each name one result a round, in the order of the rounds."""
import statistics


class Figures:
    def __init__(self):
        self.results = {}      # name -> [result of round 0, of round 1, ...]; None: not in this round
        self.not_measured = {}  # name -> why
        self.configs = {}      # peer -> how it was set up

    def add(self, name, round_no, result):
        rounds = self.results.setdefault(name, [])
        rounds += [None] * (round_no + 1 - len(rounds))
        rounds[round_no] = result

    def skip(self, name, why):
        self.not_measured[name] = why

    def values(self, name, pick='rate'):
        """A value a round (None: missing). pick: a member, with dots for members of members."""
        found = []
        for r in self.results.get(name, []):
            for member in pick.split('.'):
                r = r.get(member) if isinstance(r, dict) else None
            found.append(r)
        return found

    def median(self, name, pick='rate'):
        v = [x for x in self.values(name, pick) if x is not None]
        return statistics.median(v) if v else None


def ratios(above, below):
    """A ratio for each round in which both were measured."""
    return [a / b for a, b in zip(above, below) if a is not None and b]

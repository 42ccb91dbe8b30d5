"""Blind votes between two methods, kept beside the results; how often which one won. No torch, no gradio."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

Z_95 = 1.959964  # two-sided 95 % quantile of the normal distribution
LONGEST_LINE = 1000


@dataclass(frozen=True)
class Vote:
    """One answer to "which picture is better?".

    Attributes:
        run: stands for the comparison, without opening it (`booth.anonymous`).
        shown: the two methods, as A and as B.
        chosen: one of them, or "" for a voter who saw no difference.
        scale: of the comparison.
    """

    run: str
    shown: tuple[str, str]
    chosen: str
    scale: int


@dataclass(frozen=True)
class Tally:
    """All votes on one pair of methods.

    Attributes:
        pair: in alphabetical order.
        wins: of each of the pair. ties: votes for neither.
        share: of the first among the decided votes; None without any.
        interval: 95 % confidence interval of `share` (Wilson).
    """

    pair: tuple[str, str]
    wins: tuple[int, int]
    ties: int
    share: float | None
    interval: tuple[float, float]


class Ballots:
    """An append-only file, one JSON line per vote: several processes may write to it at once."""

    def __init__(self, path: Path):
        self.path = path

    def add(self, vote: Vote) -> None:
        """Append `vote`; OSError where not all of it could be written."""
        # The line break comes first, too: half a vote that a full disk left behind then spoils no other one.
        line = "\n" + json.dumps({**asdict(vote), "time": int(time.time())}) + "\n"
        if len(line) > LONGEST_LINE:
            raise ValueError("a vote longer than any method's name allows")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # One write to a file opened for appending is not torn apart by another process.
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            if os.write(file, line.encode()) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(file)

    def votes(self) -> list[Vote]:
        """All that can be read; a line that is none, from a full disk say, is passed over."""
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        except FileNotFoundError:
            return []
        return [vote for line in lines if len(line) <= LONGEST_LINE and (vote := _read(line))]


def _read(line: str) -> Vote | None:
    try:
        entry = json.loads(line)
        first, second = entry["shown"]
        run, chosen, scale = entry["run"], entry["chosen"], entry["scale"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    texts = all(isinstance(text, str) for text in (first, second, run, chosen))
    if not texts or type(scale) is not int or first == second or chosen not in (first, second, ""):
        return None
    return Vote(run, (first, second), chosen, scale)


def draw_pair(methods: Sequence[str], rng: random.Random) -> tuple[str, str] | None:
    """Two of `methods` in random order; None where there are not two."""
    pairs = list(combinations(methods, 2))
    if not pairs:
        return None
    first, second = rng.sample(rng.choice(pairs), 2)
    return first, second


def tally(votes: Iterable[Vote]) -> list[Tally]:
    """One entry per pair of methods with a vote, the most voted first."""
    counts: dict[tuple[str, str], list[int]] = {}
    for vote in votes:
        one, other = sorted(vote.shown)
        pair = one, other
        slot = pair.index(vote.chosen) if vote.chosen else 2
        counts.setdefault(pair, [0, 0, 0])[slot] += 1
    result = []
    for pair, (first, second, ties) in counts.items():
        decided = first + second
        share = first / decided if decided else None
        result.append(Tally(pair, (first, second), ties, share, wilson(first, decided)))
    return sorted(result, key=lambda entry: (-sum(entry.wins) - entry.ties, entry.pair))


def wilson(wins: int, total: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927), which also holds for few votes. (0, 1) without any."""
    if not total:
        return 0.0, 1.0
    share, weight = wins / total, z * z / total
    centre = (share + weight / 2) / (1 + weight)
    half = math.sqrt(share * (1 - share) * weight + weight * weight / 4) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)

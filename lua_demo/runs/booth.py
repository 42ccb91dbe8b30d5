"""Blind votes on a finished comparison: a pair is drawn, shown without names, and voted on once. No gradio."""

from __future__ import annotations

import hashlib
import random
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path

from lua_demo.catalog.methods import methods_of
from lua_demo.report.records import is_guest, size_of
from lua_demo.runs.run import Run
from lua_demo.runs.store import Store
from lua_demo.runs.votes import Ballots, Tally, Vote, draw_pair, tally
from lua_demo.schema import UserError

MOST_BALLOTS = 64  # two pictures each, of up to some 20 MB
MOST_PER_VOTER = 2
MAX_AGE_S = 3600.0
BALLOTS = "{store}.votes.jsonl"
"""File of the votes, beside the folder of the store: files in that folder are served to whoever knows their name."""

CHOICES = ("a", "b", "")
SAMPLED = "native-sampled"
"""What native is counted as where it was sampled from a prompt: elsewhere it is the photo, the ground truth."""


@dataclass(frozen=True)
class Ballot:
    """A drawn pair.

    Attributes:
        token: what stands for it outside of this process.
        run: id of the comparison.
        shown: the two methods, as A and as B, or `SAMPLED`; labels: their names for people.
        pictures: copies of their pictures, as A and as B, under names that do not say which is which.
        drawn: seconds of a clock that never goes back.
        voter: who drew it, as far as that is known.
        choice: once there is a vote, "a", "b" or "" for no difference.
    """

    token: str
    run: str
    scale: int
    shown: tuple[str, str]
    labels: tuple[str, str]
    pictures: tuple[Path, Path]
    drawn: float
    voter: str = ""
    choice: str | None = None


class Booth:
    """Draws pairs and takes one vote for each.

    Args:
        store: its runs are voted on; the votes are kept beside its folder.
        folder: where the copies of the pictures are until the pair is old.
        rng: what draws.
    """

    def __init__(self, store: Store, folder: Path, rng: random.Random | None = None):
        self.store, self.folder, self.rng = store, folder, rng or random.SystemRandom()
        self.ballots = Ballots(store.folder.with_name(BALLOTS.format(store=store.folder.name)))
        self._drawn: OrderedDict[str, Ballot] = OrderedDict()
        self._lock = threading.Lock()

    def draw(self, run_id: object, before: object = None, voter: str = "") -> Ballot:
        """A pair of the run's pictures at the target size, instead of the one whose token is `before`.

        A voter who draws more than `MOST_PER_VOTER` pairs loses their own oldest one, never another's.

        Raises:
            UserError: the run is gone, or has no two such pictures.
        """
        run = self.store.open(run_id)
        if run is None:
            raise UserError("this comparison is no longer kept; compare again")
        shown = draw_pair(full_size(run), self.rng)
        if shown is None:
            raise UserError("a vote needs two methods with pictures at the target size; compare with more methods")
        token = secrets.token_urlsafe(16)
        rows, settings = run.document["methods"], run.document["settings"]
        try:
            pictures = self._copies([run.pictures()[method] for method in shown])
        except OSError as error:
            raise UserError(
                f"the pictures could not be shown ({error.strerror or error}); draw another pair"
            ) from error
        labels = rows[shown[0]]["label"], rows[shown[1]]["label"]
        native = methods_of(run.document["source"]["kind"], settings.get("base", "")).get("native")
        if native and not native.is_truth:
            first, second = (SAMPLED if method == "native" else method for method in shown)
            shown = first, second
        # Another comparison's guest_1 is another picture; those of one name are one program's, if people name them so.
        names = {method: f"outside: {row['label']}" for method, row in rows.items() if is_guest(row)}
        shown = names.get(shown[0], shown[0]), names.get(shown[1], shown[1])
        ballot = Ballot(token, run.id, settings.get("scale", 0), shown, labels, pictures, time.monotonic(), voter)
        with self._lock:
            gone = [self._drawn.pop(before, None)] if isinstance(before, str) else []
            self._drawn[token] = ballot
            own = [old for old, other in self._drawn.items() if voter and other.voter == voter]
            gone += [self._drawn.pop(old) for old in own[:-MOST_PER_VOTER]]
            while len(self._drawn) > MOST_BALLOTS or self._oldest() < ballot.drawn - MAX_AGE_S:
                gone.append(self._drawn.popitem(last=False)[1])
        for old in filter(None, gone):
            shutil.rmtree(old.pictures[0].parent, ignore_errors=True)
        return ballot

    def vote(self, token: object, choice: object) -> Ballot:
        """Keep the vote on a drawn pair.

        Raises:
            UserError: no such pair, an old one, one with a vote, a choice that is none; the vote cannot be written.
        """
        if choice not in CHOICES:
            raise UserError("a vote is a, b, or empty for no difference")
        with self._lock:
            ballot = self._drawn.get(token) if isinstance(token, str) else None
            if not isinstance(token, str) or ballot is None or time.monotonic() - ballot.drawn > MAX_AGE_S:
                raise UserError("this pair is no longer open for votes; draw another one")
            if ballot.choice is not None:
                raise UserError("there is a vote on this pair already; draw another one")
            chosen = {"a": ballot.shown[0], "b": ballot.shown[1]}.get(choice, "")
            try:
                self.ballots.add(Vote(anonymous(ballot.run), ballot.shown, chosen, ballot.scale))
            except OSError as error:
                raise UserError(f"the vote could not be kept ({error.strerror or error}); vote again later") from error
            self._drawn[token] = ballot = replace(ballot, choice=choice)
        return ballot

    def drawn(self, token: object) -> Ballot | None:
        """The pair that `token` stands for, voted on or not; None where it is too old."""
        with self._lock:
            return self._drawn.get(token) if isinstance(token, str) else None

    def tally(self) -> list[Tally]:
        """Of all votes in the store, at any scale."""
        return tally(self.ballots.votes())

    def _oldest(self) -> float:
        return next(iter(self._drawn.values())).drawn

    def _copies(self, files: list[Path]) -> tuple[Path, Path]:
        # Copied, not linked: a link would have the time of the file, by which both could be recognised.
        folder = self.folder / secrets.token_urlsafe(16)
        folder.mkdir(parents=True)
        first, second = (folder / f"{name}{file.suffix}" for name, file in zip("ab", files, strict=True))
        for target, file in zip((first, second), files, strict=True):
            shutil.copyfile(file, target)
        return first, second


def full_size(run: Run) -> list[str]:
    """The methods whose pictures have the target size: the largest that any has."""
    rows = run.document["methods"]
    sizes = {method: size_of(rows[method]) for method in run.pictures()}
    return [method for method, size in sizes.items() if size == max(sizes.values())]


def anonymous(run_id: str) -> str:
    """What stands for a comparison in the file of the votes: its id opens it, and that file may be read by others."""
    return hashlib.sha256(run_id.encode()).hexdigest()[:16]

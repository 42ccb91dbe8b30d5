"""The blind vote below the numbers: two pictures of the comparison on show as A and B, a vote, then their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData
from gradio.utils import get_upload_folder
from markupsafe import Markup

from lua_demo.catalog.methods import METHODS, methods_of
from lua_demo.report.html import render
from lua_demo.runs.booth import SAMPLED, Ballot, Booth
from lua_demo.runs.store import Store
from lua_demo.runs.votes import Tally
from lua_demo.schema import UserError
from lua_demo.ui.limits import Limits, visitor_of
from lua_demo.ui.sessions import refusal
from lua_demo.ui.viewer import CompareViewer, Pane, View

INTRO = (
    "<p>Two of the pictures on show, in random order and without their names. Which one is better? The names and all "
    "votes so far follow. Nothing about you is kept.</p>"
)
PLACEHOLDER = "<p><b>No pair drawn yet</b></p>"
OTHER = '<p class="told">Another comparison is on show now.</p>'
DRAW, NEXT = "Draw a pair", "Next pair"

Answer = tuple[Any, Any, Any, Any, Any, Any]


class Voting:
    """The event handlers of the section; the outputs are (token, viewer, column with both, choices, words, button)."""

    def __init__(self, store: Store, limits: Limits):
        self.limits = limits
        self.booth = Booth(store, Path(get_upload_folder()) / "votes")

    def draw(self, shared: object, token: str, session: gr.Request) -> Answer:
        """A new pair of the comparison on show."""
        try:
            ballot = self.booth.draw(_run(shared), token, session.session_hash or "")
        except UserError as error:
            words = Markup('<p class="told error" role="status">No pair: {}.</p>').format(error)
            return "", [], gr.Column(visible=False), gr.Row(visible=False), words, gr.Button(DRAW, visible=True)
        views = View(panes(ballot), "mode=slider&zoom=fit&split=0.5&left=a&right=b")
        return ballot.token, views, gr.Column(visible=True), gr.Row(visible=True), "", gr.Button(visible=False)

    def open(self, shared: object, token: str, session: gr.Request) -> Answer:
        """The section was opened: there is a pair at once, and one that was drawn before stays."""
        return skip() if token else self.draw(shared, token, session)

    def vote(self, choice: str, token: str, session: gr.Request) -> Answer:
        try:
            ballot = self._cast(token, choice, session)
        except UserError as error:
            raise refusal(error) from error
        words = result_html(ballot, self.booth.tally())
        # The panes keep keys and files, so the view stays where it was looked at.
        return token, panes(ballot), gr.skip(), gr.Row(visible=False), words, gr.Button(NEXT, visible=True)

    def follow(self, shared: object, token: str) -> Answer:
        """Another comparison is on show: a pair of the one before would be voted on by mistake."""
        run, ballot = _run(shared), self.booth.drawn(token)
        if not run or not token or (ballot and ballot.run == run):
            return skip()
        return "", [], gr.Column(visible=False), gr.Row(visible=False), OTHER, gr.Button(DRAW, visible=True)

    def pair(self, run: str, session: gr.Request) -> dict[str, Any]:
        """Draw a blind pair of a finished comparison: {token: for /vote, a: picture, b: picture}."""
        try:
            ballot = self.booth.draw(run, voter=session.session_hash or "")
        except UserError as error:
            raise refusal(error) from error
        files = (FileData(path=str(path), orig_name=path.name).model_dump() for path in ballot.pictures)
        return {"token": ballot.token, **dict(zip("ab", files, strict=True))}

    def cast(self, token: str, choice: str, session: gr.Request) -> dict[str, Any]:
        """Vote "a", "b" or "" (no difference) on a drawn pair: {a, b: methods, tally: of all votes, by pair}."""
        try:
            ballot = self._cast(token, choice, session)
        except UserError as error:
            raise refusal(error) from error
        counts = [
            {"pair": list(entry.pair), "wins": list(entry.wins), "ties": entry.ties, "share": entry.share,
             "interval_95": list(entry.interval)}
            for entry in self.booth.tally()
        ]  # fmt: skip
        return {**dict(zip("ab", ballot.shown, strict=True)), "tally": counts}

    def _cast(self, token: str, choice: str, session: gr.Request) -> Ballot:
        self.limits.spend("votes", visitor_of(session))
        return self.booth.vote(token, choice)


def skip() -> Answer:
    return (gr.skip(),) * 6


def _run(shared: object) -> str:
    return str(shared.get("run") or "") if isinstance(shared, dict) else ""


def panes(ballot: Ballot) -> list[Pane]:
    """A and B; with the methods' names once there is a vote."""
    named = ballot.choice is not None
    return [
        Pane(name.lower(), f"{name}: {label}" if named else name, "", picture)
        for name, label, picture in zip("AB", ballot.labels, ballot.pictures, strict=True)
    ]


def result_html(ballot: Ballot, counts: Sequence[Tally]) -> str:
    """Who A and B are, what this voter chose, this pair's count, and the count of all pairs."""
    told = dict(zip(ballot.shown, ballot.labels, strict=True))
    return render(
        "vote.html",
        chosen=ballot.choice,
        names=dict(zip("ab", ballot.labels, strict=True)),
        sentences=[in_words(entry, told) for entry in counts if set(entry.pair) == set(ballot.shown)],
        **_tally(counts),
    )


def leading(entry: Tally) -> Tally:
    """The same with the method first that has more votes."""
    if entry.share is None or entry.share >= 0.5:
        return entry
    low, high = entry.interval
    return Tally(entry.pair[::-1], entry.wins[::-1], entry.ties, 1 - entry.share, (1 - high, 1 - low))


def in_words(entry: Tally, names: Mapping[str, str]) -> str:
    """The count of one pair; `names`: method -> its name as the voter read it."""
    entry = leading(entry)
    first, second = (names[key] for key in entry.pair)
    ties = f" {entry.ties} saw no difference." if entry.ties else ""
    if entry.share is None:
        return f"No vote so far prefers {first} or {second}.{ties}"
    votes = sum(entry.wins)
    return (
        f"So far {first} has {entry.wins[0]} of {votes} {'votes' if votes > 1 else 'vote'} against {second}: "
        f"{percent(entry)}.{ties}"
    )


def percent(entry: Tally) -> str:
    return f"{100 * (entry.share or 0):.0f} % (95 % interval {spread(entry)})"


def spread(entry: Tally) -> str:
    low, high = (f"{100 * bound:.0f}" for bound in entry.interval)
    return f"{low} to {high} %"


def label(method: str) -> str:
    if method == SAMPLED:
        return methods_of("prompt")["native"].label
    return METHODS[method].label if method in METHODS else method


def tally_html(counts: Sequence[Tally]) -> str:
    """A line per pair of methods: its share with the interval drawn on a scale from 0 to 100 %."""
    return render("votes.html", **_tally(counts))


def _tally(counts: Sequence[Tally]) -> dict[str, object]:
    return {"counts": [leading(entry) for entry in counts], "label": label, "spread": spread}


def voting_section(store: Store, share: gr.HTML, limits: Limits) -> None:
    """Build the section where this is called and wire it. The value of `share` says which comparison is on show."""
    voting = Voting(store, limits)
    with gr.Accordion("Blind vote: which is better?", open=False, elem_id="vote") as section:
        gr.HTML(INTRO, apply_default_css=False, elem_id="vote-intro")
        token = gr.State("")
        with gr.Column(visible=False, elem_id="vote-booth") as booth:
            viewer = CompareViewer(
                label="Blind pair", pair=("a", "b"), placeholder=PLACEHOLDER, guests=False, elem_id="vote-viewer"
            )
            with gr.Row(elem_id="vote-choices") as choices:
                buttons = {
                    "a": gr.Button("A is better", elem_id="vote-a", min_width=90),
                    "": gr.Button("No difference", elem_id="vote-none", min_width=90),
                    "b": gr.Button("B is better", elem_id="vote-b", min_width=90),
                }
        words = gr.HTML(apply_default_css=False, label="Votes", elem_id="vote-words")
        again = gr.Button(DRAW, elem_id="vote-next")
    views = [token, viewer, booth, choices, words, again]
    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    section.expand(voting.open, [share, token], views, **quiet)
    again.click(voting.draw, [share, token], views, **quiet)
    share.change(voting.follow, [share, token], views, **quiet)
    for choice, button in buttons.items():
        button.click(_vote_for(voting, choice), token, views, **quiet)
    gr.api(voting.pair, api_name="vote_pair", queue=False, api_visibility="undocumented")
    gr.api(voting.cast, api_name="vote", queue=False, api_visibility="undocumented")


def _vote_for(voting: Voting, choice: str) -> Callable[[str, gr.Request], Answer]:
    """Not a partial: gradio passes the session to what is annotated with it. The name must not be an endpoint's."""

    def cast_from_the_page(token: str, session: gr.Request) -> Answer:
        return voting.vote(choice, token, session)

    return cast_from_the_page

"""Blind votes: drawing, voting once, what the page gives away before the vote and what it shows after."""

from __future__ import annotations

import json
import random
import re
import shutil
import stat
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from conftest import clock
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import expect

from lua_demo.runs import booth as booth_module
from lua_demo.runs.booth import SAMPLED, Booth, anonymous, full_size
from lua_demo.runs.store import Store
from lua_demo.runs.votes import Tally
from lua_demo.schema import UserError
from lua_demo.ui.limits import Limits
from lua_demo.ui.voting import Voting, result_html, tally_html

CHOICES = ("a", "b", "")
LIMITS = Limits(lambda: False)
SESSION = gr.Request(session_hash="a")
TELLING = re.compile(r"lua|swinir|bicubic|native|round.?trip", re.IGNORECASE)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def booth(store: Store, tmp_path: Path) -> Booth:
    return Booth(store, tmp_path / "copies", random.Random(3))


@pytest.fixture
def run_id(store: Store) -> str:
    """Of a stored comparison, whose id is a secret."""
    pinned, draft = store.open(store.pinned_names()[0]), store.draft()
    for path in pinned.pictures().values():
        shutil.copyfile(path, draft / path.name)
    return store.finish(draft, pinned.document).id


def pictures(ballot: booth_module.Ballot, run: Any) -> list[bool]:
    named = [run.pictures()[method] for method in ballot.shown]
    return [copy.read_bytes() == file.read_bytes() for copy, file in zip(ballot.pictures, named, strict=True)]


def test_a_sampled_native_is_not_counted_as_the_original_of_a_photo(booth, store, run_id):
    pinned, draft = store.open(run_id), store.draft()
    for path in pinned.pictures().values():
        shutil.copyfile(path, draft / path.name)
    settings = {**pinned.document["settings"], "base": "embedded"}
    rows = pinned.document["methods"]
    rows = {**rows, "native": {**rows["native"], "label": "Native (sampled large)"}}
    document = {
        **pinned.document,
        "source": {**pinned.document["source"], "kind": "prompt"},
        "settings": settings,
        "methods": rows,
    }
    prompted = store.finish(draft, document).id
    for run, name in ((run_id, "native"), (prompted, SAMPLED)):
        while name not in (ballot := booth.draw(run)).shown:
            assert "native" not in ballot.shown
        booth.vote(ballot.token, "ab"[ballot.shown.index(name)])
    counted = [pair for entry in booth.tally() for pair in entry.pair]
    assert counted.count("native") == counted.count(SAMPLED) == 1
    words = result_html(booth.drawn(ballot.token), booth.tally())
    assert "So far Native (sampled large) has 1 of 1 vote" in words and "Native (original)" in words


def test_a_pair_is_of_the_target_size_and_under_names_that_tell_nothing(booth, store, run_id):
    run = store.open(run_id)
    assert full_size(run) == ["lua", "swinir", "cnn", "bicubic", "native", "DAT_light_x2"]  # not the base
    orders = set()
    for _ in range(40):
        ballot = booth.draw(run_id)
        orders.add(ballot.shown)
        assert pictures(ballot, run) == [True, True]
        assert [path.name for path in ballot.pictures] == ["a.webp", "b.webp"]
        assert ballot.token not in str(ballot.pictures[0]) and run_id not in str(ballot.pictures[0])
        assert ballot.pictures[0].stat().st_ino != run.pictures()[ballot.shown[0]].stat().st_ino
    assert 10 < len({frozenset(order) for order in orders}) <= 15 < len(orders)


@pytest.mark.parametrize(("choice", "index"), [("a", 0), ("b", 1), ("", None)])
def test_a_vote_is_kept_once_and_without_the_runs_id(booth, store, run_id, choice, index):
    ballot = booth.draw(run_id)
    assert booth.vote(ballot.token, choice).choice == choice
    for again in CHOICES:
        with pytest.raises(UserError, match="already"):
            booth.vote(ballot.token, again)
    (vote,) = booth.ballots.votes()
    assert (vote.run, vote.shown, vote.scale) == (anonymous(run_id), ballot.shown, 2)
    assert vote.chosen == ("" if index is None else ballot.shown[index])
    file = store.folder.with_name("store.votes.jsonl")
    written = file.read_text()
    assert run_id not in written and set(json.loads(written)) == {"run", "shown", "chosen", "scale", "time"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("choice", ["lua", "A", None, ["a"]])
def test_a_choice_that_is_none_leaves_the_pair_open(booth, run_id, choice):
    ballot = booth.draw(run_id)
    with pytest.raises(UserError, match="a vote is a, b, or empty"):
        booth.vote(ballot.token, choice)
    assert booth.ballots.votes() == [] and booth.vote(ballot.token, "a")


@pytest.mark.parametrize("token", ["", "x" * 22, None, 3, ["a"]])
def test_a_token_that_was_never_given_out_counts_nothing(booth, token):
    with pytest.raises(UserError, match="no longer open"):
        booth.vote(token, "a")
    assert booth.ballots.votes() == []


def test_an_old_pair_is_closed_and_its_pictures_are_deleted(booth, run_id, monkeypatch):
    ballot, later = booth.draw(run_id), booth_module.time.monotonic() + booth_module.MAX_AGE_S + 1
    monkeypatch.setattr(booth_module, "time", clock(monotonic=lambda: later))
    with pytest.raises(UserError, match="no longer open"):
        booth.vote(ballot.token, "a")
    assert ballot.pictures[0].exists()
    booth.draw(run_id)
    assert not ballot.pictures[0].parent.exists() and booth.drawn(ballot.token) is None


def test_pairs_are_bounded_and_the_one_before_makes_room(booth, run_id, monkeypatch):
    monkeypatch.setattr(booth_module, "MOST_BALLOTS", 2)
    first, second, third = (booth.draw(run_id) for _ in range(3))
    assert [booth.drawn(ballot.token) for ballot in (first, second, third)] == [None, second, third]
    booth.draw(run_id, third.token)
    assert booth.drawn(third.token) is None and booth.drawn(second.token) == second
    assert len(list(booth.folder.iterdir())) == 2


def test_who_draws_many_pairs_voids_only_their_own(booth, run_id):
    other = booth.draw(run_id, voter="b")
    own = [booth.draw(run_id, voter="a") for _ in range(booth_module.MOST_BALLOTS)]
    assert booth.drawn(other.token) == other and booth.vote(other.token, "a")
    assert [booth.drawn(ballot.token) for ballot in own] == [None] * (len(own) - 2) + own[-2:]


def test_a_vote_that_cannot_be_written_may_be_given_again(booth, store, run_id):
    ballot, file = booth.draw(run_id), store.folder.with_name("store.votes.jsonl")
    file.mkdir()
    with pytest.raises(UserError, match="could not be kept"):
        booth.vote(ballot.token, "a")
    file.rmdir()
    assert booth.vote(ballot.token, "a").choice == "a"


def test_no_pair_of_a_run_that_is_gone_or_has_too_few_pictures(booth, store, run_id):
    with pytest.raises(UserError, match="no longer kept"):
        booth.draw("x" * 22)
    for method in ("swinir", "cnn", "bicubic", "native", "DAT_light_x2"):
        (store.folder / run_id / f"{method}.webp").unlink()
    with pytest.raises(UserError, match="needs two methods"):
        booth.draw(run_id)
    token, _, column, _, words, again = Voting(store, LIMITS).draw({"run": run_id}, "", SESSION)
    assert token == "" and column.visible is False and "needs two methods" in words and again.visible


def test_the_result_names_both_and_counts_from_the_leader(booth, run_id):
    ballot = booth.vote(booth.draw(run_id).token, "b")
    html = result_html(ballot, booth.tally())
    chosen, other = ballot.labels[1], ballot.labels[0]
    assert f"<b>You chose B: {chosen}.</b> A is {other}." in html
    assert f"So far {chosen} has 1 of 1 vote against {other}: 100 % (95 % interval 21 to 100 %)." in html
    losing = Tally(("bicubic", "<x>"), (1, 3), 2, 0.25, (0.1, 0.6))
    (line,) = re.findall(r"<tbody>(.*)</tbody>", tally_html([losing]))
    assert line.startswith('<tr><th scope="row">&lt;x&gt; <span>over Bicubic latent</span>')
    assert "<td>75 % <span>40 to 90 %</span></td>" in line and "<td>3 : 1</td><td>2</td>" in line
    assert 'style="left:40.0%;right:calc(100% - 90.0%)"' in line and 'style="left:75.0%"' in line


def test_a_pair_of_another_comparison_is_taken_away(store, run_id):
    voting = Voting(store, LIMITS)
    token = voting.draw({"run": run_id}, "", SESSION)[0]
    assert voting.follow({"run": run_id}, token)[0] != "" and voting.follow(None, token)[0] != ""
    assert voting.follow({"run": store.pinned_names()[0]}, token)[0] == ""


@pytest.fixture(scope="module")
def page_store(tmp_path_factory) -> Store:
    """With the pinned runs of the checkout."""
    return Store(tmp_path_factory.mktemp("results") / "store")


def test_a_client_votes_once_and_reads_the_tally(url, page_store):
    client = Client(url, verbose=False, download_files=False)
    before = len(Booth(page_store, Path("unused")).ballots.votes())
    drawn = client.predict(page_store.pinned_names()[0], api_name="/vote_pair")
    assert not TELLING.search(json.dumps(drawn).replace("lua_demo", ""))
    assert urllib.request.urlopen(f"{url}gradio_api/file={drawn['a']['path']}").read()[:4] == b"RIFF"
    answer = client.predict(drawn["token"], "a", api_name="/vote")
    assert answer["a"] != answer["b"]
    (own,) = (entry for entry in answer["tally"] if set(entry["pair"]) == {answer["a"], answer["b"]})
    assert sum(own["wins"]) >= 1 and len(own["interval_95"]) == 2
    with pytest.raises(AppError, match="already"):
        client.predict(drawn["token"], "b", api_name="/vote")
    assert len(Booth(page_store, Path("unused")).ballots.votes()) == before + 1


def test_the_votes_are_served_to_nobody(url, page_store):
    booth = Booth(page_store, Path("unused"))
    client = Client(url, verbose=False, download_files=False)
    drawn = client.predict(page_store.pinned_names()[0], api_name="/vote_pair")
    client.predict(drawn["token"], "", api_name="/vote")
    assert booth.ballots.path.is_file()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{url}gradio_api/file={booth.ballots.path}")
    assert caught.value.code == 403


def settled(page) -> None:
    """Wait for the pinned run and its pictures."""
    expect(page.locator("#share [data-ref=link]")).to_have_value(re.compile("run="), timeout=30_000)
    expect(page.locator("#viewer .stage")).to_have_attribute("aria-busy", "false", timeout=60_000)


@pytest.mark.browser
def test_the_page_gives_nothing_away_before_the_vote(open_page, page_store):
    page, asked, answers = open_page(), [], []
    settled(page)
    page.on("request", lambda request: asked.append(request.url))
    page.on("response", lambda answer: answers.append(answer) if "/run/predict" in answer.url else None)
    page.get_by_role("button", name="Blind vote").click()
    viewer, section = page.locator("#vote-viewer"), page.locator("#vote")
    left, right = (viewer.locator(f"[data-ref=single] .tag.{side} b") for side in ("left", "right"))
    expect(left).to_have_text("A")
    expect(right).to_have_text("B")
    expect(viewer.locator(".stage")).to_have_attribute("aria-busy", "false", timeout=60_000)
    for mode in ("Grid", "Blink", "Difference", "Slider"):
        viewer.get_by_role("button", name=mode).click()
        assert not TELLING.search(section.evaluate("e => e.outerHTML")), mode
    files = [address for address in asked if "/file=" in address]
    assert len(files) >= 2 and not [address for address in asked if TELLING.search(address.replace("lua_demo", ""))]
    pairs = [text for answer in answers if '"label":"A"' in (text := answer.text())]  # others load the page
    assert pairs and not any(TELLING.search(text.replace("lua_demo", "")) for text in pairs)

    page.click("#vote-b")
    told = page.locator("#vote-words .reveal")
    expect(told).to_have_text(re.compile(r"^You chose B: .+\. A is .+\.$"))
    vote = Booth(page_store, Path("unused")).ballots.votes()[-1]
    assert vote.chosen == vote.shown[1] and vote.run == anonymous(page_store.pinned_names()[0])
    expect(left).to_have_text(re.compile("^A: .+"))
    expect(page.locator("#vote-choices")).to_be_hidden()
    decided = page.locator("#vote-words tbody tr").filter(has_text=re.compile(r"\d % \d+ to \d+ %"))
    expect(decided).not_to_have_count(0)  # other tests' ties have rows of their own
    page.click("#vote-next")
    expect(left).to_have_text("A")
    expect(page.locator("#vote-choices")).to_be_visible()
    expect(told).to_have_count(0)


@pytest.mark.browser
def test_an_error_map_is_one_key_away(open_page):
    page = open_page()
    settled(page)
    button = page.locator('#timing [data-error-map="bicubic"]')
    button.focus()
    page.keyboard.press("Enter")
    view = page.locator("#viewer [data-view]")
    expect(view).to_have_attribute("data-view", re.compile("mode=difference&left=native&right=bicubic"))
    expect(page.locator("#viewer .stage")).to_be_focused()
    expect(page.locator("#viewer [data-ref=single] .tag.left b")).to_contain_text(
        "Native (rendered large) − Bicubic latent"
    )

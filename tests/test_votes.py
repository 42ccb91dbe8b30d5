import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from lua_demo.runs import votes as votes_module
from lua_demo.runs.votes import Ballots, Vote, draw_pair, tally, wilson


# Computed by hand from Wilson's formula, z = 1.959964.
@pytest.mark.parametrize(
    ("wins", "total", "low", "high"),
    [(0, 0, 0.0, 1.0), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (0, 10, 0.0, 0.2775), (60, 100, 0.5020, 0.6906)],
)
def test_wilson(wins, total, low, high):
    assert wilson(wins, total) == pytest.approx((low, high), abs=1e-4)


def test_the_order_of_showing_does_not_matter_to_the_tally(tmp_path):
    ballots = Ballots(tmp_path / "votes.jsonl")
    assert ballots.votes() == []
    for shown, chosen in [
        (("lua", "swinir"), "lua"),
        (("swinir", "lua"), "lua"),
        (("swinir", "lua"), "swinir"),
        (("lua", "swinir"), ""),
        (("native", "lua"), "native"),
    ]:
        ballots.add(Vote("run", shown, chosen, 2))
    first, second = tally(ballots.votes())
    assert (first.pair, first.wins, first.ties) == (("lua", "swinir"), (2, 1), 1)
    assert first.share == pytest.approx(2 / 3)
    assert first.interval == wilson(2, 3)
    assert (second.pair, second.wins) == (("lua", "native"), (0, 1))


def test_lines_that_are_no_votes_are_passed_over(tmp_path):
    ballots = Ballots(tmp_path / "votes.jsonl")
    good = Vote("run", ("lua", "base"), "base", 4)
    ballots.add(good)
    broken = [
        "", "{", "[]", "1", '{"run": "r"}',
        json.dumps({"run": "r", "shown": ["lua"], "chosen": "lua", "scale": 2}),
        json.dumps({"run": "r", "shown": ["lua", "lua"], "chosen": "lua", "scale": 2}),
        json.dumps({"run": "r", "shown": ["lua", "base"], "chosen": "native", "scale": 2}),
        '{"run": "r", "shown": ["lua", "base"], "chosen": "lua", "scale": 1e999}',
        '{"run": "r", "shown": ["lua", "base"], "chosen": "lua", "scale": true}',
        '{"run": "r", "shown": [["lua"], "base"], "chosen": "base", "scale": 2}',
        '{"run": {}, "shown": ["lua", "base"], "chosen": "base", "scale": 2}',
        "[" * 900, "[" * 100_000, '{"run": ' * 100,
    ]  # fmt: skip
    with ballots.path.open("ab") as file:
        file.write("\n".join(broken).encode() + b"\n\xff\xfe\n")
    ballots.add(good)
    assert ballots.votes() == [good, good]


def test_a_torn_line_swallows_no_other_vote(tmp_path, monkeypatch):
    ballots, vote = Ballots(tmp_path / "votes.jsonl"), Vote("run", ("lua", "base"), "lua", 2)
    whole = votes_module.os.write
    monkeypatch.setattr(votes_module.os, "write", lambda file, data: whole(file, data[:30]))  # a disk that is full
    with pytest.raises(OSError, match="No space left"):
        ballots.add(vote)
    monkeypatch.undo()
    ballots.add(vote)
    assert ballots.votes() == [vote]


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    program = (
        "import sys; from pathlib import Path; from lua_demo.runs.votes import Ballots, Vote\n"
        "for _ in range(200): Ballots(Path(sys.argv[1])).add(Vote(sys.argv[2] * 100, ('lua', 'base'), 'lua', 2))"
    )
    root = Path(__file__).resolve().parent.parent
    path = tmp_path / "votes.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", program, path, name], cwd=root) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    runs = [vote.run[0] for vote in Ballots(path).votes()]
    assert (runs.count("a"), runs.count("b"), len(runs)) == (200, 200, 400)


def test_every_pair_is_drawn_in_both_orders():
    rng = random.Random(0)
    drawn = {draw_pair(["lua", "swinir", "native"], rng) for _ in range(200)}
    assert len(drawn) == 6
    assert draw_pair(["lua"], rng) is None

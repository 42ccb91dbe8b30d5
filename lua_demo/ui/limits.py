"""What one visitor of a public page may take: one table, each line adjustable by an environment variable.

A page that only this machine reaches has no limits, but for those that are set. The table is part of the documentation:
`python3 -m lua_demo.ui.limits` prints it.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

import gradio as gr
from gradio.utils import get_upload_folder

from lua_demo.report.records import markdown_table
from lua_demo.schema import UserError

HOUR_S = 3600.0
MOST_VISITORS = 10_000
"""Number of visitors whose use is counted; beyond it, those who were away for longest are forgotten."""


@dataclass(frozen=True)
class Limit:
    """One line of the table.

    Attributes:
        default: on a public page.
        what: is limited, in words that follow "at most N".
        hourly: spent by `Limits.spend`, and free again an hour later.
    """

    default: float
    what: str
    hourly: bool = False

    def refusal(self, name: str, value: float) -> str:
        way_out = "try again in an hour" if self.hourly else "try less at a time"
        return f"this page takes at most {value:g} {self.what}; {way_out} ({setting(name)} of the server)"


LIMITS = {
    "queue": Limit(20, "comparisons that wait, of all visitors together"),
    "places": Limit(3, "comparisons that wait or run for one visitor"),
    "size": Limit(1024, "pixels for the longest side of the base"),
    "megapixels": Limit(50, "megapixels in one photo"),
    "batches": Limit(60, "comparisons in batches per visitor and hour", hourly=True),
    "uploads": Limit(100, "uploaded files per visitor and hour", hourly=True),
    "upload_mb": Limit(100, "megabytes in one upload"),
    "cache_gb": Limit(8, "gigabytes of uploaded and exported files"),
    "exports": Limit(100, "exported files per visitor and hour", hourly=True),
    "votes": Limit(60, "votes per visitor and hour", hourly=True),
}


def setting(name: str) -> str:
    """The environment variable that sets a limit."""
    return f"LUA_DEMO_MAX_{name.upper()}"


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except OSError:
            continue  # deleted meanwhile
    return total


class Limits:
    """The limits of one page.

    Args:
        public: whether others than this machine reach the page, asked anew each time.
        environment: where the limits are set; by default that of the process.
    Raises:
        UserError: a limit that is no positive number.
    """

    def __init__(self, public: Callable[[], bool], environment: Mapping[str, str] | None = None):
        self.public = public
        environment = os.environ if environment is None else environment
        self._set = {name: _number(name, environment[setting(name)]) for name in LIMITS if setting(name) in environment}
        self._spent: dict[tuple[str, str], deque[tuple[float, float]]] = defaultdict(deque)
        self._lock = threading.Lock()

    def of(self, name: str) -> float:
        """The limit `name`; infinite where there is none."""
        return self._set.get(name, LIMITS[name].default if self.public() else math.inf)

    def check(self, name: str, amount: float) -> None:
        """UserError where `amount` is above the limit `name`."""
        if amount > self.of(name):
            raise UserError(LIMITS[name].refusal(name, self.of(name)))

    def check_room(self) -> None:
        """UserError where the files that were uploaded or made for download fill their folder."""
        if self.of("cache_gb") < math.inf:
            self.check("cache_gb", folder_bytes(Path(get_upload_folder())) / 1e9)

    def spend(self, name: str, visitor: str, amount: float = 1) -> None:
        """Count `amount` for `visitor`. UserError, and nothing is counted, where it is more than an hour's limit."""
        now = time.monotonic()
        with self._lock:
            spent = self._spent.pop((name, visitor), None) or deque()
            while spent and now - spent[0][0] > HOUR_S:
                spent.popleft()
            fits = sum(part for _, part in spent) + amount <= self.of(name)
            if fits:
                spent.append((now, amount))
            if spent:
                self._spent[name, visitor] = spent  # last in order; first are those who were away for longest
            while len(self._spent) > MOST_VISITORS:
                del self._spent[next(iter(self._spent))]
        if not fits:
            raise UserError(LIMITS[name].refusal(name, self.of(name)))


def visitor_of(request: gr.Request | None) -> str:
    """Who sends a request: the address where visitors have different ones, else the session."""
    if request is None:
        return ""
    headers = getattr(request, "headers", None) or {}
    client = getattr(request, "client", None)
    return address_of(headers, getattr(client, "host", "")) or str(getattr(request, "session_hash", "") or "")


def address_of(headers: Mapping[str, str], peer: str | None) -> str:
    """The address that a request came from; of a proxy beside the server, what that says. Empty where nobody knows.

    What a client itself puts into the header stands before what the proxy adds, and is not looked at.
    """
    forwarded = [part.strip() for part in str(headers.get("x-forwarded-for", "")).split(",")]
    for text in [peer or "", *reversed(forwarded)]:
        try:
            address = ip_address(text)
        except ValueError:
            continue
        if address.is_global:
            # A household has many IPv6 addresses, that share the first half.
            return str(ip_network((address, 64), strict=False)) if address.version == 6 else str(address)
    return ""


def to_markdown() -> str:
    """The table, for people."""
    rows = [
        [f"`{setting(name)}`", f"{limit.default:g}", f"at most so many {limit.what}"] for name, limit in LIMITS.items()
    ]
    return markdown_table([["Variable", "On a public page", "Meaning"], *rows])


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise UserError(f"{setting(name)} is {text!r}; give a positive number, or inf for none")
    return value


if __name__ == "__main__":
    print(to_markdown())

"""Shows a run while it goes on: in place on a terminal, as a line now and then in a log, or as events."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live

from harness.report.console import Console
from harness.report.live.feed import Feed
from harness.report.live.view import event, one_line, screen

if TYPE_CHECKING:
    from typing_extensions import Self

# Seconds between two pictures on a terminal, two lines of a log, and two events.
PICTURE_SECONDS, LINE_SECONDS, EVENT_SECONDS = 1.0, 10.0, 1.0
# Lines of the terminal that stay free below the picture.
FREE_LINES = 2
# At the end of a line, where a terminal shows ^C: with a line more than were drawn, one would stay on the screen.
FREE_CELLS = 2


class Shown:
    """Shows what a feed has, whenever `poll` is called and it is time; clock counts seconds.

    Nothing is shown by a console that is quiet.
    """

    def __init__(self, console: Console, feed: Feed, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._feed, self._clock = console, feed, clock
        self._live: Live | None = None
        if console.shows_progress and console.rich.is_terminal and not console.as_events:
            self._live = Live(console=console.rich, auto_refresh=False, transient=True, vertical_overflow="crop")
        self._seconds = EVENT_SECONDS if console.as_events else LINE_SECONDS if self._live is None else PICTURE_SECONDS
        # A picture shows at once that something has begun; a log has just said so.
        self._due = clock() + (0.0 if self._live is not None else self._seconds)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def poll(self) -> None:
        """Show the run, if it is time."""
        if not self._console.shows_progress or self._clock() < self._due:
            return
        self._due = self._clock() + self._seconds
        stepped = self._feed.read()
        self._feed.warning = self._console.last_notice
        now = self._feed.now()
        if self._console.as_events:
            if stepped:
                self._console.emit("progress", **event(now))
        elif self._live is None:
            self._console.line(one_line(now))
        else:
            width, height = self._console.rich.size
            self._live.update(Group(*screen(now, width - FREE_CELLS, height - FREE_LINES)), refresh=True)


def picture(console: Console, feed: Feed, *, has_ended: bool) -> None:
    """Print one picture of a run, in full."""
    feed.read()
    for line in screen(feed.at_the_end() if has_ended else feed.now(), console.rich.width, 1000):
        console.rich.print(line, soft_wrap=True)

"""Progress bars on stderr or in a notebook, for work that takes longer than half a second."""

from __future__ import annotations

import os
import time
import warnings
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

from lazynwb.config import config
from lazynwb.terminal_text import visible
from lazynwb.threads import FINALIZER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

#: Seconds of work before a bar is shown.
_DELAY = 0.5
#: Labels of open bars, which differ for two scans of one table in a query.
_labels: set[str] = set()


class Progress:
    """A progress bar of one stage over many files; a context manager.

    In a terminal the bar is hidden while a scan is suspended (see `suspended`), so that output of the caller
    does not interfere, and removed at the end, also after an error.

    Parameters
    ----------
    description : str
        Name of the stage.
    total : int
        Number of files, or of other units.
    disabled : bool
        Whether to hide the bar.
    unit : str
        Name of the unit; files by default.
    """

    def __init__(self, description: str, total: int, *, disabled: bool, unit: str = "NWB") -> None:
        self._description = description
        self._unit = unit
        self._total = total
        self._done = 0
        self._started = time.perf_counter()
        # As tqdm does, without importing it.
        self._disabled = disabled or config.disable_progress or bool(os.environ.get("TQDM_DISABLE"))
        self._bar: Any = None
        self._label = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, units: int = 1) -> None:
        """Add finished units, and show the bar once the stage has taken long enough."""
        self.update_to(self._done + units)

    def update_to(self, done: int) -> None:
        """Set the number of finished units, which never decreases, and refresh the elapsed time."""
        self._done = max(self._done, min(done, self._total))
        if self._disabled or time.perf_counter() - self._started < _DELAY:
            return
        if self._bar is None:
            self._bar = self._open()
        bar = self._bar
        bar.n = self._done
        if not bar.disable and time.time() - bar.last_print_t >= bar.mininterval:
            bar.refresh()
            bar.last_print_t = time.time()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Hide the bar of a scan while its consumer has control."""
        if self._bar is not None:
            self._bar.clear()
        yield
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        """Remove the bar."""
        bar, self._bar, self._disabled = self._bar, None, True
        if bar is None:
            return
        _labels.discard(self._label)
        FINALIZER.__exit__()
        bar.total = bar.n  # a notebook would keep the bar of an incomplete stage
        bar.close()

    def _open(self) -> Any:  # noqa: ANN401 - tqdm is imported late and has no stubs
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about notebooks without ipywidgets
            from tqdm.autonotebook import tqdm  # `tqdm.auto` also imports asyncio

        class Bar(tqdm):  # type: ignore[type-arg]
            monitor_interval = 0  # a thread that would outlive the query

        self._label = _unused(visible(self._description))  # names of tables are from files
        _labels.add(self._label)
        bar = Bar(
            total=self._total,
            desc=self._label,
            unit=self._unit,
            leave=False,
            smoothing=0,
        )
        if not bar.disable:
            bar.start_t -= time.perf_counter() - self._started
            bar.last_print_t = 0
        # Polars only finalizes a scan that a `head` ended on its next call: enforce it while the bar is open.
        FINALIZER.__enter__()
        return bar


def _unused(label: str) -> str:
    """Return a label that no open bar has, with a number from the second bar on."""
    candidates = (f"{label} ({number})" if number > 1 else label for number in count(1))
    return next(one for one in candidates if one not in _labels)

"""Progress bars on stderr, for work that takes longer than half a second."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lazynwb.config import config
from lazynwb.terminal_text import visible

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

#: Seconds that work may take in silence.
_PATIENCE = 0.5


class Progress:
    """The progress of one stage over many files.

    The bar exists only inside the `with` block, so that none is left on the screen, nor any object of tqdm
    alive, while a query is suspended; its count and its clock go on in the next block.

    Parameters
    ----------
    description : str
    total : int
        Number of files, or of other units.
    disabled : bool
    unit : str
        What is counted: files, unless said otherwise.
    """

    def __init__(self, description: str, total: int, *, disabled: bool, unit: str = "NWB") -> None:
        self._description = description
        self._unit = unit
        self._total = total
        self._done = 0
        self._shown = 0
        self._started = time.perf_counter()
        self._disabled = disabled or config.disable_progress
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def update(self, files: int = 1) -> None:
        """Count files that are done; show the bar if the work has taken long enough."""
        self._done += files
        if self._disabled or time.perf_counter() - self._started < _PATIENCE:
            return
        if self._bar is None:
            self._bar = self._open()
            self._shown = self._bar.n
        self._bar.update(self._done - self._shown)
        self._shown = self._done

    def _open(self) -> Any:  # noqa: ANN401 - tqdm is imported late and has no stubs
        from tqdm import tqdm

        class Bar(tqdm):  # type: ignore[type-arg]
            monitor_interval = 0  # a thread that would outlive the query

        bar = Bar(
            total=self._total,
            initial=min(self._done, self._total),
            desc=visible(self._description),  # names of tables are from files
            unit=self._unit,
            leave=False,
        )
        if not bar.disable:
            bar.start_t -= time.perf_counter() - self._started
        return bar

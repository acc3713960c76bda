"""Random SQL statements for hypothesis."""
# ruff: noqa: S608 - to put statements together is what this is for

from __future__ import annotations

import functools

import hypothesis.strategies as st
import polars as pl

from random_expressions import INTERNAL, keys_of

#: Rows of the largest join.
MAX_ROWS = 20_000


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@st.composite
def sql_conditions(draw, frame: pl.DataFrame) -> str:
    plain = [n for n, d in frame.schema.items() if d.is_numeric() or d in {pl.String, pl.Boolean}]
    name = draw(st.sampled_from(plain))
    one, values = quoted(name), frame[name].drop_nulls()
    if values.is_empty() or not draw(st.integers(0, 5)):
        return draw(st.sampled_from([f"{one} IS NULL", f"{one} IS NOT NULL"]))
    value = values[draw(st.integers(0, len(values) - 1))]
    if values.dtype == pl.Boolean:
        return draw(st.sampled_from([one, f"NOT {one}", f"{one} = TRUE"]))
    if isinstance(value, float) and not -1e6 < value < 1e6:
        value = 0.5
    literal = "'" + value.replace("'", "''") + "'" if isinstance(value, str) else f"{value!r}"
    compare = draw(st.sampled_from(["=", "<>", "<", "<=", ">", ">="]))
    ways = [f"{one} {compare} {literal}", f"{one} IN ({literal})"]
    if not isinstance(value, str):
        ways += [f"{one} BETWEEN {literal} AND {literal}", f"{one} + 1 > {literal}"]
    return draw(st.sampled_from(ways))


@st.composite
def statements(draw, frames: dict[str, pl.DataFrame]) -> tuple[str, bool]:
    """A statement, and whether it defines the order of rows."""
    table = draw(st.sampled_from(sorted(frames)))
    frame = frames[table]
    where = ""
    if draw(st.integers(0, 3)):
        parts = draw(st.lists(sql_conditions(frame), min_size=1, max_size=3))
        where = " WHERE " + functools.reduce(
            lambda a, b: f"{a} {draw(st.sampled_from(['AND', 'OR']))} {b}", parts
        )
    names = [quoted(name) for name in frame.columns]
    kind = draw(st.sampled_from(["rows", "rows", "groups", "join", "count"]))
    source = quoted(table)
    if kind == "count":
        return f"SELECT COUNT(*) AS n FROM {source}{where}", True
    if kind == "groups":
        keys = [quoted(n) for n in keys_of(frame)]
        by = draw(st.sampled_from(keys))
        having = draw(st.sampled_from(["", " HAVING COUNT(*) > 1"]))
        return (
            f'SELECT {by}, COUNT(*) AS n, SUM(CAST("_table_index" AS BIGINT)) AS total, '
            f'MAX("_table_index") AS most FROM {source}{where} GROUP BY {by}{having}'
        ), False
    if kind == "join" and len(frames) > 1:
        other = draw(st.sampled_from(sorted(set(frames) - {table})))
        if frame.height * frames[other].height <= MAX_ROWS:
            right = quoted(
                draw(
                    st.sampled_from(
                        [n for n in frames[other].columns if n not in INTERNAL] or ["_table_index"]
                    )
                )
            )
            left = draw(st.sampled_from(names))
            how = draw(st.sampled_from(["INNER", "LEFT"]))
            return (
                f'SELECT a.{left} AS x, b.{right} AS y, a."_table_index" AS i FROM {source} a {how} JOIN '
                f'{quoted(other)} b ON a."_nwb_path" = b."_nwb_path"'
            ), False
    listed = (
        ", ".join(draw(st.lists(st.sampled_from(names), min_size=1, unique=True)))
        if draw(st.booleans())
        else "*"
    )
    order = draw(
        st.sampled_from(
            ["", ' ORDER BY "_nwb_path", "_table_index"', ' ORDER BY "_table_index" DESC, "_nwb_path"']
        )
    )
    limit = f" LIMIT {draw(st.integers(0, frame.height + 1))}" if draw(st.booleans()) else ""
    offset = f" OFFSET {draw(st.integers(0, 3))}" if limit and draw(st.booleans()) else ""
    return f"SELECT {listed} FROM {source}{where}{order}{limit}{offset}", True

"""`lazynwb index`: build, update and describe an index of sessions."""

from typing import Annotated

import typer

from lazynwb.cli.base import Command, Group
from lazynwb.cli.options import FormatOption, OutputOption, SourcesArgument, StorageOption, sources_of
from lazynwb.cli.output import emit, target_of

index_app = typer.Typer(
    cls=Group, help="Build, update or describe an index of sessions.", no_args_is_help=True
)

_IndexArgument = Annotated[str, typer.Argument(metavar="INDEX", help="Folder or URL of the index.")]
_AddedArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="SOURCE", help="Sources to add. All sources of the index are checked."),
]
_ChunksOption = Annotated[
    list[str] | None,
    typer.Option(
        "--chunks",
        metavar="COLUMN",
        help="Store chunk locations of a column, or of all columns with 'all'; repeatable.",
    ),
]
_ValuesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--values",
        metavar="TABLE",
        help="Store small columns of a table, or of all tables with 'all', as Parquet; repeatable.",
    ),
]
_StrictOption = Annotated[
    bool,
    typer.Option("--strict", help="Fail if a file cannot be read. Default: record it in the index."),
]


@index_app.command("build", cls=Command)
def build(  # noqa: PLR0913 - the options of a command
    *,
    sources: SourcesArgument = None,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="INDEX", help="Folder or URL of the new index.")
    ],
    chunks: _ChunksOption = None,
    values: _ValuesOption = None,
    strict: _StrictOption = False,
    storage_option: StorageOption = None,
) -> None:
    """Build an index of files, from which scans are planned without opening them."""
    command_sources = sources_of(sources, storage_option)
    from lazynwb.index.build import build_index

    done = build_index(
        command_sources.sources,
        output,
        chunk_locations=_all_or_named(chunks) or False,
        values=_all_or_named(values) or False,
        storage_options=command_sources.storage,
        ignore_errors=not strict,
    )
    _write_summary(done.failed, done.sessions, output)


@index_app.command("update", cls=Command)
def update(
    index: _IndexArgument,
    sources: _AddedArgument = None,
    *,
    chunks: _ChunksOption = None,
    strict: _StrictOption = False,
    storage_option: StorageOption = None,
) -> None:
    """Update the entries of changed and removed files, and add the given files."""
    command_sources = sources_of(sources or [index], storage_option)
    from lazynwb.index.build import update_index

    done = update_index(
        index,
        command_sources.sources if sources else None,
        chunk_locations=_all_or_named(chunks),
        storage_options=command_sources.storage,
        ignore_errors=not strict,
    )
    counts = f"{done.added:,} added, {done.changed:,} changed, {done.removed:,} removed"
    _write_summary(done.failed, done.sessions, index, counts)


@index_app.command("info", cls=Command)
def info(
    index: _IndexArgument,
    *,
    output_format: FormatOption = None,
    output: OutputOption = None,
    storage_option: StorageOption = None,
) -> None:
    """Show the number of sessions, date and size of an index."""
    target = target_of(output_format, output)
    command_sources = sources_of([index], storage_option)
    import polars as pl

    from lazynwb.cli.render import Column, count_text, show, size_text
    from lazynwb.index.reader import open_index
    from lazynwb.scan import scan_index
    from lazynwb.terminal_text import visible

    opened = open_index(index, command_sources.storage)
    manifest = opened.manifest
    tables = scan_index(opened, "tables").select(pl.len(), pl.col("table").n_unique()).collect()
    problems = scan_index(opened).filter(pl.col("problem").is_not_null()).select(pl.len()).collect().item()
    size = sum(sum(part.bytes.values()) for part in manifest.parts)
    frame = pl.DataFrame(
        {
            "index": [opened.name],
            "sessions": [manifest.sessions],
            "with_problems": [problems],
            "tables": [tables.item(0, 0)],
            "different_tables": [tables.item(0, 1)],
            "bytes": [size],
            "parts": [len(manifest.parts)],
            "generation": [manifest.generation],
            "made": [manifest.made],
            "made_by": [manifest.made_by],
        }
    )

    def lines() -> None:
        values = {
            "index": visible(opened.name, None),
            "sessions": f"{manifest.sessions:,}" + (f", {problems:,} with problems" if problems else ""),
            "tables": f"{tables.item(0, 0):,}, under {tables.item(0, 1):,} paths",
            "size": f"{size_text(size)} in {count_text(len(manifest.parts), 'part')}",
            "made": f"{visible(manifest.made, None)} by lazynwb {visible(manifest.made_by, None)}",
            "generation": f"{manifest.generation:,}",
        }
        show([Column("index", list(values)), Column("", list(values.values()))])

    emit(frame, target, lines)


def _all_or_named(named: list[str] | None) -> bool | list[str] | None:
    """Return the value of a repeatable option as True ("all"), a list of names, or None."""
    return True if named == ["all"] else named or None


def _write_summary(failed: list[str], sessions: int, index: str, changes: str = "") -> None:
    from lazynwb.cli.render import count_text, write_remark
    from lazynwb.terminal_text import visible

    for message in failed:
        write_remark(f"not indexed: {visible(message, None)}")
    parts = [changes, f"{count_text(sessions, 'session')} in {index}"]
    if failed:
        parts.append(f"{count_text(len(failed), 'file')} could not be read")
    write_remark("; ".join(filter(None, parts)))

"""The commands of ``diffsim-index`` that take images or sources out, list sources, and relocate them."""

from cli import options
from cli.option_groups import Speech, expand_groups
from cli.output import meant_index, short_path
from cli.terminal.printing import show, show_json
from retrieval.errors import UsageError
from retrieval.text import counted


@expand_groups
def remove(
    what: options.Patterns = None,
    *,
    source: options.Source = None,
    index: options.Index = None,
    as_json: options.AsJson = False,
    speech: Speech,
) -> None:
    """Take images or a whole source out of an index. Files stay, and a build of their folder adds them again."""
    from retrieval.indexing.sources.upkeep import drop_source
    from retrieval.indexing.upkeep.removing import remove_items

    speaker = speech.speaker()
    if bool(what) == (source is not None):
        raise UsageError("name either images or --source FOLDER")
    place = meant_index(index)
    change = drop_source(place, source) if source is not None else remove_items(place, what or [])
    if as_json:
        show_json(change.to_dict())
    elif not speaker.quiet:
        show(f"{change.index}: {counted(change.items, 'image')}, {change.removed} removed")


@expand_groups
def sources(
    place: options.Place = None,
    *,
    index: options.Index = None,
    as_json: options.AsJson = False,
    speech: Speech,
) -> None:
    """List the sources of an index: where they are, their images, and how many files are missing."""
    from retrieval.indexing.sources.upkeep import list_sources

    speech.speaker()  # lets the library log
    found = list_sources(meant_index(index or place))
    if as_json:
        show_json(found.to_dict())
        return
    show(" images  missing  source")
    for source in found.sources:
        name = short_path(source.location) if source.location else "images below no source"
        about = "" if source.is_there or not source.location else " (not there)"
        show(f"{source.items:7d}  {source.missing:7d}  {name}{about}{'' if source.whole else ' (some files of it)'}")


@expand_groups
def relocate(
    old: options.OldPlace,
    new: options.NewPlace,
    *,
    index: options.Index = None,
    as_json: options.AsJson = False,
    speech: Speech,
) -> None:
    """Say that the images of the source OLD lie in NEW now. Nothing is computed, and no image is read."""
    from retrieval.indexing.sources.upkeep import relocate_sources

    speaker = speech.speaker()
    change = relocate_sources(meant_index(index), old, new)
    if as_json:
        show_json(change.to_dict())
    elif not speaker.quiet:
        for source in change.relocated:
            missing = f", {source.missing} of them missing" if source.missing else ""
            show(f"{short_path(source.location)}: {counted(source.items, 'image')}{missing}")

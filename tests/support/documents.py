"""Read the project's Markdown: sections, tables, code, sentences and figures."""

import math
import re

from tests.support.paths import ROOT

SENTENCES_OF = {
    "README.md": 22,
    "USAGE.md": 25,
    "BENCHMARKS.md": 25,
    "DESIGN.md": 25,
    "LOG.md": 25,
    "CHANGELOG.md": 25,
    "index_store/FORMAT.md": 25,
    "retrieval/README.md": 25,
    "retrieval/models/README.md": 25,
    "retrieval/models/cells/MODEL_CARD.md": 25,
    "retrieval/models/mini/MODEL_CARD.md": 25,
    "retrieval/evaluation/README.md": 25,
}
DOCUMENTS = sorted(SENTENCES_OF)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^(?: {4}|\t).*$", re.MULTILINE)
FIGURE = re.compile(r"(?<![\w.,/-])(\d+(?:[.,]\d+)*)(?![\w-])( (?:images/s|ms|s|GB|MB|kB|MP|%|x)(?!\w))?")


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def section(text: str, heading: str) -> str:
    """The part of a document below a heading of the second level."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no section '{heading}'"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of all rows of all tables, without the line below a heading."""
    lines = [line for line in FENCE.sub("", text).splitlines() if line.startswith("|")]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if not re.fullmatch(r"[|:\- ]+", line)
    ]


def plain(cell: str) -> str:
    return cell.strip("`* ")


def code_lines(text: str) -> list[str]:
    """Lines of code blocks, without a prompt."""
    blocks = [*FENCE.findall(text), *INDENTED.findall(FENCE.sub("", text))]
    return [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]


def code_spans(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", INDENTED.sub("", FENCE.sub("", text)))


def sentences(text: str) -> list[str]:
    """Clauses of the prose: no code blocks, tables, headings and pictures; an item of a list stands alone."""
    blocks: list[list[str]] = [[]]
    for line in INDENTED.sub("", FENCE.sub("", text)).splitlines():
        item = re.match(r"\s*(?:[-*]|\d+\.) +", line)
        if item or not line.strip() or line.startswith(("|", "#", "![")):
            blocks.append([])
        if not line.startswith(("|", "#", "![")):
            blocks[-1].append(line[item.end() :] if item else line)
    found = []
    for block in blocks:
        words = re.sub(r"`[^`]+`", "code", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(block)))
        found += [part for part in re.split(r"[.!?:;](?=\s|$)", words) if re.search(r"\w", part)]
    return found


def percentile_90(text: str) -> int:
    lengths = sorted(len(re.findall(r"\w[\w'’.,-]*", sentence)) for sentence in sentences(text))
    return lengths[math.ceil(0.9 * len(lengths)) - 1]


def figures_in(cells: list[list[str]]) -> set[str]:
    """Every number, with its unit where one follows."""
    return {"".join(found) for row in cells for cell in row for found in FIGURE.findall(re.sub(r"`[^`]*`", "", cell))}

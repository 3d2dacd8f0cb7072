"""Names, messages and documents use the words of ``docs/GLOSSARY.md``.

The last two tables of the glossary are the rule: the words to avoid, and the places where one of them is allowed, with
the reason. A new word is added there and nowhere else.

``python -m tests.test_words d2tune/metrics`` lists the words to avoid in a file or folder, without a path the number
of them in each folder. ``pytest tests/test_words.py -k metrics`` tests the folders of that name.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
GLOSSARY = Path("docs", "GLOSSARY.md")
TABLES_START = "## Words to avoid"
PLACES = (
    "d2tune",
    "tools",
    "projects",
    "docs",
    "benchmarks",
    "tests",
    "README.md",
    "CHANGELOG.md",
    "datasets/README.md",
    "Makefile",
    "pyproject.toml",
)
TEXT_FILES = (".md", ".yaml", ".html", ".css", ".toml")
WORD_START = "(?<![A-Za-z])"
SUBWORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


class Word(NamedTuple):
    """A word or phrase to avoid; ``*`` stands for any letters."""

    say: str
    pattern: str
    names_only: bool


class Allowed(NamedTuple):
    """A name, or words of a text, that may stand in the files of some globs; upper case counts."""

    pattern: str
    globs: tuple[str, ...]

    def covers(self, file: str) -> bool:
        return any(fnmatchcase(file, glob) for glob in self.globs)


class Text(NamedTuple):
    """A string, docstring, comment or document, and the lines that it covers, counted from 1."""

    text: str
    first_line: int
    last_line: int


class Hit(NamedTuple):
    """A word to avoid in a file."""

    file: str
    line: int
    kind: str
    word: str
    say: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind} {' '.join(self.word.split())!r}: say {self.say}"


@cache
def words() -> tuple[Word, ...]:
    """What the glossary's table of words to avoid lists."""
    cells = [(say, names_only, cell) for say, *cells in table("say") for names_only, cell in enumerate(cells)]
    return tuple(Word(say, pattern, bool(names_only)) for say, names_only, cell in cells for pattern in quoted(cell))


@cache
def exceptions() -> tuple[Allowed, ...]:
    """What the glossary's table of exceptions lists."""
    rows = table("allowed")
    return tuple(Allowed(name, tuple(quoted(globs))) for names, globs, _ in rows for name in quoted(names))


def table(first_heading: str) -> list[list[str]]:
    """The rows of the glossary's table whose first column has this heading."""
    lines = iter((ROOT / GLOSSARY).read_text(encoding="utf-8").partition(TABLES_START)[2].splitlines())
    next(line for line in lines if line.startswith(f"| {first_heading} |"))
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def quoted(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


@cache
def expression(pattern: str) -> str:
    """The regular expression of a pattern; its words may be on two lines, also of a comment."""
    words = (re.escape(word).replace(r"\*", "[A-Za-z]*") for word in pattern.split())
    return WORD_START + r"[\s#]+".join(words) + (r"(?![A-Za-z])" if pattern[-1].isalpha() else "")


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """The expression of a pattern; there are more of them than `re` keeps."""
    return re.compile(expression(pattern))


@cache
def allowed_in(file: str) -> tuple[str, ...]:
    """The patterns of the exceptions for a file."""
    return tuple(exception.pattern for exception in exceptions() if exception.covers(file))


@cache
def all_phrases() -> re.Pattern[str]:
    """One expression for all words of texts; the group that matches is ``w`` and the word's place."""
    by_letter: dict[str, list[str]] = {}  # which spares trying all of them at each word
    for place, word in enumerate(words()):
        if not word.names_only:
            first = re.escape(word.pattern[0].lower())
            by_letter.setdefault(first, []).append(f"(?P<w{place}>{expression(word.pattern)})")
    choices = "|".join(f"(?={first})(?:{'|'.join(those)})" for first, those in by_letter.items())
    return re.compile(f"{WORD_START}(?:{choices})", re.IGNORECASE)


def in_text(text: Text, lines: list[str], file: str) -> Iterator[Hit]:
    """The words to avoid in a text of a file with these lines."""
    matches = list(all_phrases().finditer(text.text))
    if not matches:
        return
    allowed = [span.span() for pattern in allowed_in(file) for span in compiled(pattern).finditer(text.text)]
    for match in matches:
        if not any(start <= match.start() and match.end() <= end for start, end in allowed):
            assert match.lastgroup is not None
            say = words()[int(match.lastgroup[1:])].say
            yield Hit(file, line_of(match, text, lines), "text", match.group(), say)


def line_of(match: re.Match[str], text: Text, lines: list[str]) -> int:
    """The line of a match, or the first line with its first word in a string that is put together from several."""
    if text.text.count("\n") == text.last_line - text.first_line:
        return text.first_line + text.text.count("\n", 0, match.start())
    word = match.group().split()[0]
    return next((n for n in range(text.first_line, text.last_line + 1) if word in lines[n - 1]), text.first_line)


def in_name(name: str, line: int, file: str) -> Iterator[Hit]:
    """The words to avoid in a name: in its words, or in all of it where a pattern has an underscore."""
    avoided = words_of(name)
    if avoided and not any(fnmatchcase(name, pattern) for pattern in allowed_in(file)):
        yield from (Hit(file, line, "name", name, word.say) for word in avoided)


@cache
def words_of(name: str) -> frozenset[Word]:
    """The words to avoid that a name has."""
    return words_like(name.lower(), whole=True).union(
        *(words_like(subword.lower(), whole=False) for subword in SUBWORD.findall(name))
    )


@cache
def words_like(text: str, *, whole: bool) -> frozenset[Word]:
    """The words to avoid whose pattern a whole name matches, or one of its words."""
    return frozenset(word for word in words() if ("_" in word.pattern) == whole and fnmatchcase(text, word.pattern))


def in_file(path: Path, root: Path = ROOT) -> list[Hit]:
    """The words to avoid in a file: in its name, in the names that it defines, and in its texts."""
    file, source = path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
    lines = source.splitlines()
    hits = [hit for place in Path(file).with_suffix("").parts for hit in in_name(place, 1, file)]
    if path.suffix != ".py":
        document = own_text(source) if Path(file) == GLOSSARY else source
        return [*hits, *in_text(Text(document, 1, document.count("\n") + 1), lines, file)]
    nodes = nodes_of(ast.parse(source))
    for name, line in defined_names(nodes):
        if name.startswith("test_"):  # a sentence
            hits += in_text(Text(name.replace("_", " "), line, line), lines, file)
        else:
            hits += in_name(name, line, file)
    if not file.startswith("tests/"):
        for text in (*strings(nodes), *comments(source)):
            hits += in_text(text, lines, file)
    return sorted(set(hits))


def own_text(glossary: str) -> str:
    """The glossary without its columns of words to avoid."""
    head = glossary.partition(TABLES_START)[0].splitlines()
    return "\n".join("|".join(line.split("|")[:-2]) if line.startswith("|") else line for line in head)


def nodes_of(tree: ast.AST) -> list[ast.AST]:
    """A tree and all below it, as `ast.walk` gives them but in half its time, without what has no place in the file."""
    nodes = [tree]
    for node in nodes:
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, list):
                nodes += [one for one in value if isinstance(one, ast.AST)]
            elif isinstance(value, ast.AST) and not isinstance(value, ast.expr_context):
                nodes.append(value)
    return nodes


def defined_names(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, int]]:
    """The names that a file defines, with their lines. Names that it only uses are defined elsewhere."""
    for node in nodes:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name, node.lineno
            case ast.arg():
                yield node.arg, node.lineno
            case ast.Name(ctx=ast.Store()):
                yield node.id, node.lineno
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr, node.lineno
            case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield name, node.lineno


def strings(nodes: list[ast.AST]) -> Iterator[Text]:
    """All strings, docstrings included; an f-string has ``{}`` where its values go."""
    inner = {id(inside) for node in nodes if isinstance(node, ast.JoinedStr) for inside in nodes_of(node)}
    for node in nodes:
        match node:
            case ast.Constant(value=str(value)) if id(node) not in inner:
                yield Text(value, node.lineno, node.end_lineno or node.lineno)
            case ast.JoinedStr():
                pieces = (str(piece.value) if isinstance(piece, ast.Constant) else "{}" for piece in node.values)
                yield Text("".join(pieces), node.lineno, node.end_lineno or node.lineno)


def comments(source: str) -> Iterator[Text]:
    """All comments, those on consecutive lines together."""
    block: list[tuple[int, str]] = []
    if "#" not in source:
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if block and token.start[0] > block[-1][0] + 1:
                yield Text("\n".join(text for _, text in block), block[0][0], block[-1][0])
                block = []
            block.append((token.start[0], token.string))
    if block:
        yield Text("\n".join(text for _, text in block), block[0][0], block[-1][0])


def files_of(place: Path) -> list[Path]:
    """The files of a folder, or the file, that are held to the glossary; hidden and built ones are not."""
    paths = [place] if place.is_file() else sorted(place.rglob("*"))
    kept = [path for path in paths if path.suffix == ".py" or path.suffix in TEXT_FILES or path.name == "Makefile"]
    return [path for path in kept if not any(name.startswith((".", "__pyc")) for name in path.relative_to(ROOT).parts)]


def rooms() -> dict[str, list[Path]]:
    """The files by folder, the packages d2tune and tests by their own folders."""
    grouped: dict[str, list[Path]] = {}
    for path in (path for place in PLACES for path in files_of(ROOT / place)):
        folders = path.relative_to(ROOT).parts
        depth = 2 if folders[0] in ("d2tune", "tests") and len(folders) > 2 else 1
        grouped.setdefault("/".join(folders[:depth]), []).append(path)
    return grouped


@pytest.mark.parametrize("room", rooms())
def test_words_are_those_of_the_glossary(room: str) -> None:
    hits = [hit for path in rooms()[room] for hit in in_file(path)]
    assert not hits, f"{len(hits)} words to avoid in {room}:\n" + "\n".join(map(str, hits))


CODE = '''"""Every COLOUR has a
centre."""
# mended is
# no good
def picture(x, found=None):
    voids = x.figure = 1
    """There is no grey."""
    raise ValueError(f"the file {x} is "
                     f"no JSON, recommended {found.told}")
'''


def test_words_in_names_strings_and_comments_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "d2tune" / "code.py"
    file.parent.mkdir()
    file.write_text(CODE)
    assert [(hit.line, hit.kind, hit.word) for hit in in_file(file, tmp_path)] == [
        (1, "text", "COLOUR"),
        (2, "text", "centre"),
        (3, "text", "is\n# no"),
        (3, "text", "mended"),
        (5, "name", "found"),
        (5, "name", "picture"),
        (6, "name", "figure"),
        (6, "name", "voids"),
        (7, "text", "grey"),
        (8, "text", "is no"),
    ]


def test_strings_of_tests_are_free_and_their_names_are_sentences(tmp_path: Path) -> None:
    file = tmp_path / "tests" / "test_a.py"
    file.parent.mkdir()
    file.write_text('def test_colour_is_found(): assert "grey"\n')
    assert [hit.word for hit in in_file(file, tmp_path)] == ["colour"]


def test_documents_and_file_names(tmp_path: Path) -> None:
    file = tmp_path / "docs" / "grey_pictures.md"
    file.parent.mkdir()
    file.write_text("There is no doubt.\nThis is\nno longer a\npicture.\n")
    assert [(hit.line, hit.kind) for hit in in_file(file, tmp_path)] == [(1, "name"), (1, "name"), (4, "text")]


def test_each_exception_is_needed() -> None:
    """One that nothing needs any longer is removed from the glossary."""
    unneeded = set(exceptions())
    for path in (path for paths in rooms().values() for path in paths):
        file = path.relative_to(ROOT).as_posix()
        covering = {allowed for allowed in unneeded if allowed.covers(file)}
        if not covering:
            continue
        source = path.read_text(encoding="utf-8")
        if Path(file) == GLOSSARY:
            source = own_text(source)
        left = {allowed for allowed in covering if not compiled(allowed.pattern).search(source)}
        if left and path.suffix == ".py":
            names = {name for name, _ in defined_names(nodes_of(ast.parse(source)))}
            left = {allowed for allowed in left if not any(fnmatchcase(name, allowed.pattern) for name in names)}
        unneeded -= covering - left
    assert not unneeded


def main(places: Iterable[str]) -> int:
    """Print the words to avoid in files and folders, or their number in each folder of the checkout.

    Returns:
        1 where there are any, else 0.
    """
    hits = [hit for place in places for path in files_of((ROOT / place).resolve()) for hit in in_file(path)]
    if places:
        print(*hits, f"{len(hits)} words to avoid", sep="\n")
        return int(bool(hits))
    counts = {room: sum(len(in_file(path)) for path in paths) for room, paths in rooms().items()}
    print(*(f"{count:5} {room}" for room, count in counts.items()), f"{sum(counts.values()):5} in all", sep="\n")
    return int(any(counts.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

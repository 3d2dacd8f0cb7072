"""XML files of annotations, parsed without anything that a document type can do."""

from __future__ import annotations

import codecs
import re
from xml.etree.ElementTree import Element

_DECLARATION = re.compile(
    r"<\?xml\s[^>]{0,200}?\bencoding\s*=\s*[\"']([A-Za-z][A-Za-z0-9._-]{0,39})[\"'][^>]{0,200}?\?>"
)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_STARTS = (("<".encode("utf-16-le"), "utf-16-le"), ("<".encode("utf-16-be"), "utf-16-be"))
_SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "big5": "cp950", "euc_kr": "cp949"}
"""Codecs by those that are often declared for text with more characters than they have."""

_NOT_TEXT = frozenset({"idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape"})
_PROLOG = re.compile(r"\s+|<!--.*?-->|<\?.*?\?>", re.DOTALL)
_IN_DOCUMENT_TYPE = re.compile(r"<!--|<\?|[\"'\[\]>]")
_ENDS = {"<!--": "-->", "<?": "?>", '"': '"', "'": "'"}


class XmlError(ValueError):
    """A file that is not valid XML, or whose encoding is unknown.

    Args:
        message: What is wrong.
        line: Line in the file, from 1; None where the place is unknown.
        column: Column in the line, from 1.
    """

    def __init__(self, message: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


def parse_xml(content: bytes) -> Element:
    """The root element of an XML file, in any encoding that the file declares and Python knows.

    A document type is dropped, because its entities can name other files and grow without bound, and no annotation
    needs them.

    Raises:
        XmlError: The content is not valid XML, its encoding is unknown, or it uses an entity of a document type.
    """
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    text = _without_document_type(decode_xml(content).lstrip())
    try:
        root: Element = fromstring(text, forbid_dtd=True)
    except DefusedXmlException as error:
        raise XmlError("the file declares a document type in a place where XML has none") from error
    except ParseError as error:
        line, column = error.position
        reason = str(error)
        if "undefined entity" in reason:
            reason += "; entities of a document type are not expanded"
        raise XmlError(f"the file is not valid XML ({reason})", line, column + 1) from error
    except (ValueError, LookupError) as error:
        raise XmlError(f"the file cannot be read ({error})") from error
    return root


def decode_xml(content: bytes) -> str:
    """The text of an XML file: by its byte order mark, else by the encoding that it declares, else as UTF-8.

    Raises:
        XmlError: The encoding is unknown, or the content is not text in it.
    """
    name = next((codec for mark, codec in _MARKS if content.startswith(mark)), None)
    name = name or next((codec for start, codec in _STARTS if content.startswith(start)), None)
    if name is None:
        declared = _DECLARATION.match(content[:500].decode("latin-1").lstrip())
        name = "utf-8" if declared is None else declared[1]
    try:
        codec = codecs.lookup(name).name
        if codec.replace("-", "_") in _NOT_TEXT:
            raise LookupError
        return content.decode(_SUPERSETS.get(codec.replace("-", "_"), codec))
    except UnicodeDecodeError as error:
        raise XmlError(f"the file is not text in {name}, its encoding (byte {error.start})") from error
    except (LookupError, ValueError) as error:
        raise XmlError(f"the file declares the encoding {name}, which is unknown") from error


def _without_document_type(text: str) -> str:
    """The text with blanks in place of a document type, so that lines and columns stay."""
    at = 0
    while match := _PROLOG.match(text, at):
        at = match.end()
    if not text.startswith("<!DOCTYPE", at):
        return text
    end, depth = at + len("<!DOCTYPE"), 0
    while token := _IN_DOCUMENT_TYPE.search(text, end):
        end = token.end()
        if token[0] in _ENDS:
            stop = text.find(_ENDS[token[0]], end)
            if stop < 0:
                return text
            end = stop + len(_ENDS[token[0]])
        depth += {"[": 1, "]": -1}.get(token[0], 0)
        if token[0] == ">" and depth <= 0:
            return text[:at] + re.sub(r"[^\r\n]", " ", text[at:end]) + text[end:]
    return text

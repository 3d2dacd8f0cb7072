"""XML files of annotations, parsed without anything that a document type can do."""

from __future__ import annotations

from xml.etree.ElementTree import Element


class XmlError(ValueError):
    """A file that is not valid XML, or that declares a document type.

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
    """The root element of an XML file, in any encoding that the file declares.

    Raises:
        XmlError: The content is not valid XML, its encoding is unknown, or it declares a document type: entities can
            name other files and grow without bound, and no annotation needs them.
    """
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        root: Element = fromstring(content, forbid_dtd=True)
    except DefusedXmlException as error:
        raise XmlError("the file declares a document type, which annotation files must not have") from error
    except ParseError as error:
        line, column = error.position
        raise XmlError(f"the file is not valid XML ({error})", line, column + 1) from error
    except (ValueError, LookupError) as error:
        raise XmlError(f"the file cannot be read ({error})") from error
    return root

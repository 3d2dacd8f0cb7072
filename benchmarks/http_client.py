"""A client that takes little of the processor that the measured server needs: HTTP/1.1 over one connection."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit


class Connection:
    """A connection that stays open from request to request.

    Args:
        url: The address of the server, such as ``http://127.0.0.1:8000``.
    """

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._address = address.hostname, address.port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, content: bytes, kind: str) -> tuple[int, bytes]:
        """Send a body; returns the status and the body of the answer."""
        return await self._ask(f"POST {path}", f"Content-Type: {kind}\r\nContent-Length: {len(content)}\r\n", content)

    async def get(self, path: str) -> tuple[int, bytes]:
        """The status and the body of an address."""
        return await self._ask(f"GET {path}", "", b"")

    async def _ask(self, line: str, fields: str, content: bytes) -> tuple[int, bytes]:
        reader, writer = self._streams or await asyncio.open_connection(*self._address)
        self._streams = reader, writer
        writer.write(f"{line} HTTP/1.1\r\nHost: server\r\n{fields}\r\n".encode() + content)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        body = await reader.readexactly(length)
        if "connection: close" in head:
            await self.close()
        return int(head.split(" ", 2)[1]), body

    async def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            await self._streams[1].wait_closed()
            self._streams = None

"""The page of a world as a process of its own: ``python -m tests.acceptance.process FOLDER``; it prints its port."""

import socket
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from d2tune.acceptance.routes import data_router, page_router
from tests.acceptance.world import opened

if __name__ == "__main__":
    app = FastAPI()
    app.include_router(page_router())
    app.include_router(data_router(opened(Path(sys.argv[1]))))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listening])

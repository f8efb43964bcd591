"""Serving the page: to this computer only unless told otherwise, without asking any other computer for anything."""

from __future__ import annotations

from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .page import CSS, theme

MAX_UPLOAD = "200mb"
FETCHING = tuple(f"{root}{way}" for root in ("/gradio_api", "") for way in ("/file=http", "/file/http", "/proxy=", "/run-history"))


class NothingFetched:
    """Refuses the addresses under which Gradio would fetch something from elsewhere for a visitor."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].lower().startswith(FETCHING):
            await PlainTextResponse("nothing is fetched from elsewhere here", 403)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def launch(page: gr.Blocks, *, host: str = "127.0.0.1", port: int | None = None, user: str | None = None, **more: Any) -> str:
    """Serve the page in the background; returns its address.

    Args:
        host: address to listen at.
        port: None: the first free one from 7860.
        user: name:password asked for before anything is shown.
        more: of Gradio's `launch`: ssl_keyfile, ssl_certfile, inbrowser.

    Raises:
        OSError: the address or port is taken.
    """
    try:
        page.launch(
            server_name=host, server_port=port, auth=tuple(user.split(":", 1)) if user else None, share=False, quiet=True,
            prevent_thread_lock=True, ssl_verify=False, theme=theme(), css=CSS, max_file_size=MAX_UPLOAD, footer_links=["api"],
            enable_monitoring=False, show_error=False, ssr_mode=False, app_kwargs={"middleware": [Middleware(NothingFetched)]}, **more,
        )  # fmt: skip
    except ValueError:
        # Gradio looks for its own page through the proxy settings of this computer and gives up after three seconds: on a busy
        # computer, or one behind a proxy, the page is there all the same.
        if not page.is_running:
            raise
    return page.local_url.rstrip("/")

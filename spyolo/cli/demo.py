"""Open the demo in the browser: pictures, webcam and video, learning on the spot.

    python app/demo.py                                   # http://127.0.0.1:7860, this computer only
    python app/demo.py --weights runs/voc/best.safetensors
    python app/demo.py --host 0.0.0.0 --user ann:secret --tls-key key.pem --tls-cert cert.pem

Offered are the *.safetensors in weights/, runs/*/best.safetensors, what was learned on the page, and files or published names given with
--weights; those trained on photographs come first. Everything runs on this computer: the page
fetches nothing from elsewhere. Browsers give a camera only to localhost or HTTPS, hence the TLS files for other computers.
"""

from __future__ import annotations

import argparse
import importlib
import ssl
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from spyolo.cli.options import Parser
from spyolo.errors import InputError

HERE = Path(__file__).resolve().parent.parent  # the package; its neighbour, in a checkout, is app/


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="demo", description=__doc__)
    p.add_argument("--weights", nargs="+", default=[], help="weights files, or names of published ones, to offer first")
    p.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 lets other computers in [%(default)s]")
    p.add_argument("--port", type=int, help="port [the first free one from 7860]")
    p.add_argument("--user", help="name:password asked for before anything is shown")
    p.add_argument("--tls-key", help="private key file, PEM; with --tls-cert the page is served by HTTPS")
    p.add_argument("--tls-cert", help="certificate file, PEM")
    p.add_argument("--save-to", default="runs/learned", help="folder for weights learned on the page [%(default)s]")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda ... [%(default)s]")
    p.add_argument("--open", action="store_true", help="open the browser")
    return p


def check(args: argparse.Namespace) -> None:
    if bool(args.tls_key) != bool(args.tls_cert):
        raise InputError("--tls-key and --tls-cert go together")
    for name in ("tls_key", "tls_cert"):
        if getattr(args, name) and not Path(getattr(args, name)).is_file():
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name)}: no such file")
    if args.tls_key:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(args.tls_cert, args.tls_key)
        except OSError as error:  # said here: the server would say it in a thread of its own, over and over
            raise InputError(f"--tls-key {args.tls_key} and --tls-cert {args.tls_cert} are no pair of PEM files: {error}") from error
    if args.user is not None and not all(args.user.partition(":")):
        raise InputError("--user wants name:password")
    if args.port is not None and not 0 < args.port < 65536:
        raise InputError(f"--port must be between 1 and 65535, got {args.port}")


def app_module(name: str) -> ModuleType:
    """A module of the app: in the wheel it lies inside the package, in a checkout beside it.

    Raises:
        InputError: Gradio is not installed.
    """
    inside = (HERE / "app").is_dir()
    if not inside and str(HERE.parent) not in sys.path:
        sys.path.insert(0, str(HERE.parent))
    try:
        return importlib.import_module(f"spyolo.app.{name}" if inside else f"app.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "gradio":
            raise InputError("the demo needs Gradio: pip install gradio, or `make demo`, which does it for you") from None
        raise


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    check(args)
    app_models, app_page, app_server = (app_module(name) for name in ("models", "page", "server"))
    from spyolo.neurons.fused import Compiling
    from spyolo.published import folder, resolve
    from spyolo.running import choose_device, sigterm_as_ctrl_c

    Compiling.enabled = False  # a page should answer at once; compiling would take the first visitor half a minute
    save_to = Path(args.save_to).resolve()
    given, runs = [resolve(w) for w in args.weights], sorted(Path("runs").glob("*/best.safetensors"))
    models = app_models.Models([folder(), save_to], given, choose_device(args.device), runs)
    if not models.photographs:
        print("no model here was trained on photographs: the ones offered know drawn shapes only", file=sys.stderr)
    with sigterm_as_ctrl_c(), tempfile.TemporaryDirectory(prefix="spyolo-demo-") as scratch:  # what visitors left on disk must go
        page = app_page.build(models, Path(scratch), save_to)
        try:
            url = app_server.launch(
                page, host=args.host, port=args.port, user=args.user, inbrowser=args.open, ssl_keyfile=args.tls_key,
                ssl_certfile=args.tls_cert,
            )  # fmt: skip
        except OSError as error:
            raise InputError(f"the page cannot be served at {args.host}:{args.port or '7860...'}: {error}") from error
        print(f"demo at {url} (Ctrl-C ends it); {len(models.names())} model(s), starting with {models.first}", flush=True)
        try:
            page.block_thread()
        finally:
            page.sessions.close()
    return 0

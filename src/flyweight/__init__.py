"""The smallest model that does the job: every verb is a function here and a command of the CLI.

Nothing heavy loads before a verb is used.
"""

from __future__ import annotations

import sys
from importlib import import_module, metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any

from flyweight.errors import FlyweightError

if TYPE_CHECKING:
    from flyweight.distill.advise import advise
    from flyweight.distill.verb import distill
    from flyweight.make.compare import compare
    from flyweight.make.device_verb import device
    from flyweight.make.evaluate import eval  # noqa: A004
    from flyweight.make.families import families
    from flyweight.make.pack_verb import pack
    from flyweight.make.plan_verb import plan
    from flyweight.make.prune import prune
    from flyweight.make.status import status
    from flyweight.make.sticker_verb import sticker
    from flyweight.make.usage_verb import usage
    from flyweight.make.verb import make
    from flyweight.make.written import write_data
    from flyweight.runtime.engines_verb import engines
    from flyweight.serve.chat_verb import chat
    from flyweight.serve.verb import key, serve
    from flyweight.vision.add import add_vision
    from flyweight.vision.train import train_vision

    __version__: str

# Each verb and the module that defines a function of that name, in the order of the help page.
# Such a module imports nothing heavy at its top, so that the CLI can read its signature.
VERBS = {
    "make": "flyweight.make.verb",
    "prune": "flyweight.make.prune",
    "distill": "flyweight.distill.verb",
    "write_data": "flyweight.make.written",
    "advise": "flyweight.distill.advise",
    "add_vision": "flyweight.vision.add",
    "train_vision": "flyweight.vision.train",
    "pack": "flyweight.make.pack_verb",
    "eval": "flyweight.make.evaluate",
    "chat": "flyweight.serve.chat_verb",
    "serve": "flyweight.serve.verb",
    "key": "flyweight.serve.verb",
    "sticker": "flyweight.make.sticker_verb",
    "usage": "flyweight.make.usage_verb",
    "status": "flyweight.make.status",
    "compare": "flyweight.make.compare",
    "families": "flyweight.make.families",
    "device": "flyweight.make.device_verb",
    "plan": "flyweight.make.plan_verb",
    "engines": "flyweight.runtime.engines_verb",
}


def __getattr__(name: str) -> Any:
    if name in VERBS:
        return getattr(import_module(VERBS[name]), name)
    if name == "__version__":
        return metadata.version("flyweight")
    raise AttributeError(f"module 'flyweight' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """This package: `make` and `distill` stay verbs although subpackages bear the same names.

    Python binds a subpackage to its parent when it is first imported, which would hide the verb.
    The subpackage stays reachable as `from flyweight.make import ...`.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in VERBS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

__all__ = [
    "VERBS",
    "FlyweightError",
    "__version__",
    "add_vision",
    "advise",
    "chat",
    "compare",
    "device",
    "distill",
    "engines",
    "eval",
    "families",
    "key",
    "make",
    "pack",
    "plan",
    "prune",
    "serve",
    "status",
    "sticker",
    "train_vision",
    "usage",
    "write_data",
]

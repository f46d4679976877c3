"""Any engine that can score, as a model of lm-eval: all its tasks run on what `make` hands over.

    import lm_eval
    from flyweight.runtime.lm_eval_model import EngineModel
    with EngineModel.opened(Path("out/demo")) as model:
        lm_eval.simple_evaluate(model=model, tasks=["arc_easy"])

Texts become ids by the folder's own Hugging Face tokenizer, as in lm-eval's own back end, so that
only the engine differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flyweight.errors import MissingExtra, OptionError
from flyweight.progress import bar, track
from flyweight.runtime.engine import Engine
from flyweight.runtime.open_model import USUAL_CONTEXT, open_model
from flyweight.runtime.torch_engine import TorchEngine

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError as error:
    raise MissingExtra(
        "lm-eval is not installed. Install it: pip install 'flyweight[eval]'"
    ) from error

MOST_TOKENS = 256  # of an answer, where a task says nothing
Tokens = tuple[Any, list[int], list[int]]  # texts, ids of the context, ids of what follows


class EngineModel(TemplateLM):
    """An engine and its tokenizer, as lm-eval asks models. OptionError for one that cannot score.

    What is longer than the engine's context loses its beginning, as in lm-eval's own back end.
    """

    def __init__(self, engine: Engine, tokenizer: Any) -> None:
        super().__init__()
        if "score" not in engine.can:
            raise OptionError(f"{engine.name} cannot score answers; use llama.cpp or torch")
        self.engine, self.tokenizer = engine, tokenizer

    @classmethod
    @contextmanager
    def opened(
        cls,
        model: Path,
        *,
        engine: str = "llama.cpp",
        bits: int | None = None,
        context: int | None = None,
        streams: int = 8,
    ) -> Iterator[EngineModel]:
        """A model folder, in llama.cpp or in torch (fp32), closed at the end."""
        if engine == "torch":
            from flyweight.checkpoint import open_checkpoint

            source = open_checkpoint(model)
            length = context or min(source.context, USUAL_CONTEXT)  # as llama.cpp gets it
            with TorchEngine(Path(model), context=length, streams=streams) as opened:
                yield cls(opened, source.tokenizer())
            return
        opened, found = open_model(
            model, bits=bits, engine=engine, context=context, streams=streams
        )
        with opened:
            yield cls(opened, found.tokenizer())

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else begin

    @property
    def max_length(self) -> int:
        return self.engine.context

    @property
    def tokenizer_name(self) -> str:
        return self.tokenizer.name_or_path.replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """The ids of a text; one that begins with the begin token gets no second one."""
        begin = self.tokenizer.bos_token
        if add_special_tokens is None and begin and string.startswith(begin):
            add_special_tokens = False
        special = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return self.tokenizer.encode(string, **special)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A chat as text."""
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def _loglikelihood_tokens(
        self, requests: Sequence[Tokens], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        pairs = [self._cut(context, answer) for _, context, answer in requests]
        if disable_tqdm:
            scores = self.engine.score_many(pairs)
        else:
            with bar("Scoring", len(pairs)) as running:
                scores = self.engine.score_many(pairs, on_done=running.advance)
        return [(score.total, score.greedy) for score in scores]

    def _cut(self, context: list[int], answer: list[int]) -> tuple[list[int], list[int]]:
        """The end of both that fits the context, at least one token of it before the answer."""
        answer = answer[-(self.max_length - 1) :]
        return context[-(self.max_length - len(answer)) :], answer

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-probabilities of whole texts, in windows that do not overlap."""
        windows = [
            (place, make_disjoint_window(window))
            for place, request in enumerate(requests)
            for window in get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length - 1,
                context_len=1,
            )
        ]
        totals = [0.0] * len(requests)
        asked = [(None, *window) for _, window in windows]
        found = self._loglikelihood_tokens(asked, disable_tqdm)
        for (place, _), (total, _) in zip(windows, found, strict=True):
            totals[place] += total
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers, each up to the texts that end it."""
        answers = []
        wanted = requests if disable_tqdm else track(requests, "Answering")
        for request in wanted:
            arguments: Any = request.args
            text, told = arguments
            stop = told.get("until") or []
            most = min(told.get("max_gen_toks") or MOST_TOKENS, self.max_length - 1)
            answer = self.engine.generate(
                self.tok_encode(text)[-(self.max_length - most) :] or [self.prefix_token_id],
                most,
                stop=[stop] if isinstance(stop, str) else stop,
                temperature=(told.get("temperature") or 0.0) if told.get("do_sample") else 0.0,
                reuse=True,
            )
            answers.append(answer.text)
        return answers


__all__ = ["EngineModel"]

"""OpenVINO in this process: prompts and batches fast on processors with matrix units.

It reads the GGUF files that llama.cpp runs (OpenVINO GenAI's own reader), and takes what it does
not know in another way, without a word: with Llama 3's RoPE scaling or with biases its answers are
nonsense. So a file that holds anything beyond KEYS and TENSORS is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from flyweight.errors import EngineError, MissingExtra, OptionError
from flyweight.runtime.characters import WholeCharacters
from flyweight.runtime.engine import (
    Capability,
    Engine,
    Generation,
    Piece,
    Streamed,
    Wish,
    check_sizes,
)
from flyweight.runtime.gguf_header import GgufHeader, read_header
from flyweight.runtime.gguf_tokens import GgufTokens
from flyweight.runtime.threads import default_threads

ARCHITECTURES = ("llama", "qwen3")  # Qwen 2 is written as a Llama with biases
KEYS = frozenset({
    "vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length",
    "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.value_length", "attention.layer_norm_rms_epsilon", "rope.dimension_count",
    "rope.freq_base",
})  # fmt: skip
TENSORS = re.compile(
    r"(token_embd|output_norm|output|blk\.\d+\.(attn_norm|attn_[qkv]|attn_output|attn_[qk]_norm"
    r"|ffn_norm|ffn_gate|ffn_up|ffn_down))\.weight"
)
KINDS = {0: "F32", 1: "F16", 2: "Q4_0", 8: "Q8_0"}  # GGML's numbers of types
DTYPES = {"float32": "f32", "bfloat16": "bf16"}
CACHE = {("float32", 16): "f16", ("bfloat16", 16): "bf16"}  # of 8 bits: u8
_BLOCK = 32  # tokens of context that are given out at once
_PASS = 2048  # tokens of prompts in one pass at most


@contextmanager
def extra() -> Iterator[None]:
    """MissingExtra where OpenVINO is absent."""
    try:
        yield
    except ImportError as error:
        if not str(error.name or "").startswith("openvino"):
            raise
        raise MissingExtra(
            f"{error.name} is not installed: pip install 'flyweight[openvino]'."
        ) from error


class OpenVinoEngine(Engine):
    """A GGUF file in OpenVINO: `context` tokens for each of `streams` answers in one batch.

    `dtype` is what is computed in: bfloat16 reads prompts twice as fast where the processor knows
    it, float32 says what transformers says. `kv_bits` 8 halves the context's memory. Raises
    EngineError for a file that OpenVINO would not run as it is meant, MissingExtra without it.
    """

    name: ClassVar[str] = "openvino"
    can: ClassVar[frozenset[Capability]] = frozenset({"stream", "batch"})

    def __init__(
        self,
        gguf: Path,
        *,
        context: int = 2048,
        threads: int | None = None,
        streams: int = 1,
        dtype: str = "bfloat16",
        kv_bits: int = 16,
    ) -> None:
        check_sizes(context, streams, threads)
        if dtype not in DTYPES or kv_bits not in (8, 16):
            raise OptionError("dtype is float32 or bfloat16, kv_bits is 16 or 8")
        with extra():
            import openvino
            import openvino_genai
        self.source, self.context, self.streams = Path(gguf), context, streams
        header = read_header(self.source)
        check_known(self.source, header)
        self.threads = threads or default_threads(self.source.stat().st_size)
        self._tokens = GgufTokens(header)
        self._tensor, self._config = openvino.Tensor, openvino_genai.GenerationConfig
        self._stopped = openvino_genai.GenerationFinishReason.STOP
        properties = {
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": DTYPES[dtype],
            "KV_CACHE_PRECISION": CACHE.get((dtype, kv_bits), "u8"),
        }
        try:
            self._pipeline: Any = openvino_genai.ContinuousBatchingPipeline(
                str(self.source), self._scheduling(openvino_genai), "CPU", properties
            )
        except RuntimeError as error:
            raise EngineError(
                f"{self.source}: OpenVINO does not load it ({_reason(error)}); use llama.cpp"
            ) from error

    def _scheduling(self, openvino_genai: Any) -> Any:
        found = openvino_genai.SchedulerConfig()
        found.max_num_seqs = self.streams
        found.num_kv_blocks = self.streams * (-(-self.context // _BLOCK) + 1)
        found.max_num_batched_tokens = max(min(self.context * self.streams, _PASS), self.streams)
        return found

    def _answers(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        wish: Wish,
        reuse: bool,  # what was read is read again: the answers are the same
        on_done: Callable[[], object],
    ) -> list[Generation]:
        ends = self._tokens.ends | set(wish.stop_ids)
        with self._running() as (pipeline, handles):
            for place, (prompt, s) in enumerate(zip(prompts, seeds, strict=True)):
                options = self._options(wish, ends, s)
                handles.append(pipeline.add_request(place, self._ids(prompt), options))
            waiting = len(handles)
            while pipeline.has_non_finished_requests():
                pipeline.step()
                now = pipeline.get_metrics().requests
                for _ in range(waiting - now):
                    on_done()
                waiting = min(now, waiting)
            for _ in range(waiting):  # those that ended in the last step
                on_done()
            return [
                self._generation(handle, len(prompt), ends, wish.stop)
                for handle, prompt in zip(handles, prompts, strict=True)
            ]

    def _streamed(
        self,
        prompt: Sequence[int],
        seed: int,
        wish: Wish,
        reuse: bool,
        on_piece: Callable[[Piece], object],
    ) -> Streamed:
        ids: list[int] = []
        said = WholeCharacters(self.detokenize, on_piece, wish.stop)
        options = self._options(wish, self._tokens.ends, seed)
        with self._running() as (pipeline, handles):
            handle = pipeline.add_request(0, self._ids(prompt), options)
            handles.append(handle)
            while pipeline.has_non_finished_requests():
                pipeline.step()
                if not handle.can_read():
                    continue
                [output] = handle.read().values()
                ids += output.generated_ids
                said.add([i for i in output.generated_ids if i not in self._tokens.ends])
            said.end()
            prompt_seconds, seconds = _seconds(handle.get_perf_metrics().raw_metrics)
        return Streamed(
            text=said.text,
            stopped=said.stopped or (bool(ids) and ids[-1] in self._tokens.ends),
            written=len(ids),
            seconds=seconds,
            prompt_seconds=prompt_seconds,
            prompt_tokens=len(prompt),
        )

    def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        return self._tokens.encode(text, add_special=add_special)

    def detokenize(self, ids: Sequence[int]) -> str:
        return self._tokens.decode(ids)

    def close(self) -> None:
        self._pipeline = None

    def _check_fit(self, prompt: Sequence[int], max_tokens: int) -> None:
        super()._check_fit(prompt, max_tokens)
        if not (min(prompt) >= 0 and max(prompt) < self._tokens.size):
            raise OptionError(f"{self.source}: its tokens are 0 to {self._tokens.size - 1}")

    def _ids(self, prompt: Sequence[int]) -> Any:
        import numpy as np

        return self._tensor(np.array([list(prompt)], dtype=np.int64))  # [1, T]

    def _options(self, wish: Wish, ends: Collection[int], seed: int) -> Any:
        drawn = wish.temperature > 0
        options = self._config(
            max_new_tokens=wish.max_tokens, do_sample=drawn, include_stop_str_in_output=True
        )
        if drawn:
            options.temperature, options.rng_seed = wish.temperature, seed
            options.top_p = wish.top_p
        if ends:
            options.set_eos_token_id(min(ends))
            options.stop_token_ids = set(ends)
        else:
            options.ignore_eos = True
        options.stop_strings = set(wish.stop)
        return options

    def _generation(
        self, handle: Any, prompt_tokens: int, ends: Collection[int], stop: Sequence[str]
    ) -> Generation:
        outputs = handle.read_all()
        if not outputs:
            raise EngineError(f"{self.source}: OpenVINO gave no answer ({handle.get_status()})")
        written = list(outputs[0].generated_ids)
        ended = bool(written) and written[-1] in ends
        ids = written[:-1] if ended else written
        text = self.detokenize(ids)
        for each in stop:
            text = text.partition(each)[0]
        prompt_seconds, seconds = _seconds(handle.get_perf_metrics().raw_metrics)
        return Generation(
            ids=ids,
            text=text,
            stop_id=written[-1] if ended else None,
            written=len(written),
            seconds=seconds,
            prompt_seconds=prompt_seconds,
            prompt_tokens=prompt_tokens,
            top=[],
        )

    @contextmanager
    def _running(self) -> Iterator[tuple[Any, list[Any]]]:
        """The pipeline and a list for its requests, which an exception ends as well."""
        if self._pipeline is None:
            raise EngineError(f"{self.source}: the engine is closed; open it again")
        pipeline, handles = self._pipeline, []
        try:
            yield pipeline, handles
        except RuntimeError as error:
            raise EngineError(f"{self.source}: OpenVINO failed: {_reason(error)}") from error
        finally:
            if pipeline.has_non_finished_requests():
                for handle in handles:
                    handle.cancel()
                pipeline.step()  # which lets them go


def check_known(gguf: Path, header: GgufHeader) -> None:
    """EngineError for a file of which OpenVINO's reader would leave something out."""
    wrong = ""
    if header.architecture not in ARCHITECTURES:
        wrong = f"the architecture {header.architecture!r}"
    start = f"{header.architecture}."
    for key in header.keys:
        if key.startswith(start) and key.removeprefix(start) not in KEYS:
            wrong = wrong or key
    for name, tensor in header.tensors.items():
        if not TENSORS.fullmatch(name):
            wrong = wrong or name
        elif tensor.kind not in KINDS:
            wrong = wrong or f"{name} in another type than {', '.join(KINDS.values())}"
    if wrong:
        raise EngineError(f"{gguf}: OpenVINO's reader does not know {wrong}; use llama.cpp")


def _seconds(raw: Any) -> tuple[float, float]:
    """Until the first token, and from it to the last; OpenVINO counts microseconds."""
    return sum(raw.m_times_to_first_token) / 1e6, sum(raw.m_durations) / 1e6


def _reason(error: Exception) -> str:
    """The line of OpenVINO's complaint that says something; the first ones are its own files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "/src/" not in line and not line.startswith("Exception")]
    return (telling or lines or [type(error).__name__])[-1][:200]


__all__ = ["OpenVinoEngine", "check_known"]

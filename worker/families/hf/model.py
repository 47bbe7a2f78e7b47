"""The network of `hf`: a shared base model with a LoRA adapter in it (Hu et al. 2021).

Each linear layer W x becomes W x + (alpha / rank) B A x, with A (rank, in) and B (out, rank)
trained and W frozen. The network's state is the adapter; the base is identified by its digest.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from peft import LoraConfig
from torch import Tensor, nn

from db.errors import BadInput, Refused
from worker.data.dataset import LocalDataset, Shape
from worker.families.hf import Chat, HfParams, HfSampling
from worker.families.hf.base import (
    Base,
    base_digest,
    bytes_to_load_base,
    has_conv1d,
    load_base,
    read_adapter_config,
    write_adapter_config,
)
from worker.families.hf.chat_tokenizer import ChatTokenizer, read_tokenizer
from worker.families.hf.folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, positions
from worker.families.hf.forwards import read_again, read_on, targets, total_loss
from worker.families.hf.generation import WINDOW, TextGenerator
from worker.families.hf.inspection import inspect_base
from worker.families.hf.packing import PackedFeed
from worker.families.hf.probes import has_cache, supports_packing
from worker.families.hf.slots import SlotCache, enable_slots, is_static, read_slots
from worker.families.hf.special_tokens import known
from worker.networks.inspection import Inspection
from worker.networks.learning_rates import step, warm_up
from worker.networks.network import Batch, Clock, Draws, Finished, Losses, Row, StreamingNetwork
from worker.networks.params import SamplingParams, TrainingParams
from worker.networks.version_folder import CONFIG, Config, own_record, read_json

UNBOUNDED = 2**31  # positions of a base that states no limit


class CausalModel(StreamingNetwork):
    """The network of family `hf`; its parameters are an `HfParams`, its data int64 (B, 2, T).

    Its state is the adapter's, under the names of peft's files; a base alone has none.
    """

    params: HfParams
    weights_file: ClassVar[str] = ADAPTER_WEIGHTS
    read_ahead: ClassVar[int] = WINDOW
    memory_remedy: ClassVar[str] = "take a larger machine, or set base to bf16 or nf4"

    def __init__(self, params: TrainingParams, shape: Shape) -> None:
        super().__init__(params, shape)
        # gives the network a device, because a base alone adds no parameters to it
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)
        self.lora = nn.ParameterList()
        self.base: Base | None = None
        self.adapter: str | None = None
        self.rows_at_once = self.params.micro_batch
        self._config: Config = {}
        self._tokenizer: Any = None

    @classmethod
    def feed(
        cls, params: TrainingParams, dataset: LocalDataset, *, seed: int, files: Path
    ) -> PackedFeed:
        """Packed examples, by the parent's tokenizer in `files`."""
        settings = cast(HfParams, params)
        return PackedFeed(
            dataset, ChatTokenizer(read_tokenizer(files), settings.chat), settings, seed=seed
        )

    def open(self, folder: Path, device: torch.device) -> bool:
        """Load the base of a version's folder, and add an adapter if the version has one."""
        self._folder, self._config = folder, read_json(folder / CONFIG)
        digest = base_digest(folder)
        self.base = load_base(folder, digest, device=device, precision=self.params.base)
        if not (folder / ADAPTER_CONFIG).is_file():
            return False
        stored = read_adapter_config(folder)
        for name, theirs in (("rank", stored.r), ("alpha", stored.lora_alpha)):
            if (ours := getattr(self.params, name)) != theirs:
                raise BadInput(
                    f"{name} is {ours}, but the adapter was made with {theirs}",
                    remedy=f"set {name}={theirs}",
                )
        self._add(stored)
        return True

    def bytes_to_load(self, folder: Path, device: torch.device) -> int:
        """The size of the base; 0 if it is in memory already."""
        digest = base_digest(folder)
        return bytes_to_load_base(folder, digest, device=device, precision=self.params.base)

    def load_files(self, folder: Path) -> None:
        """Read the tokenizer, which generating text needs."""
        self._tokenizer = read_tokenizer(folder)

    def save_files(self, folder: Path) -> None:
        """Write `adapter_config.json`, if there is an adapter."""
        if self.adapter is not None:
            write_adapter_config(self._base.adapter_config(self.adapter), folder)

    def describe(self, record: Config) -> Config:
        """The base's `config.json` with Genmill's record in it."""
        return {**self._config, "genmill": own_record(self._config) | record}

    def inspect(self) -> Inspection:
        """See `Network.inspect`."""
        with self._base.using(None) as model:
            return inspect_base(
                model, self._tokenizer, self._folder, positions=positions(self._config)
            )

    def shared_bytes(self) -> Mapping[str, int]:
        """The base, which other networks may use too."""
        return {"/".join(self._base.key): self._base.size_bytes}

    def begin_finetuning(self) -> None:
        """Continue with the parent's adapter, or add one that changes nothing yet."""
        limit = self.positions
        if self.params.context > limit:
            raise Refused(
                f"context is {self.params.context}, but this base takes at most {limit} tokens",
                remedy=f"set context={limit} or less",
            )
        with self._base.using(None) as model:
            if self.params.packing and not supports_packing(model):
                raise Refused(
                    f"{type(model).__name__} mixes examples that are packed into one row",
                    remedy="set packing=false",
                )
        if self.adapter is None:
            # loading a base draws from torch's generator; finding it in memory does not
            torch.manual_seed(torch.initial_seed())
            self._add(self._fresh_config())

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """AdamW over the adapter."""
        decay, lr = self.params.weight_decay, self.params.lr
        with self._base.using(self.adapter, training=True):  # turns on the gradients
            pass
        return {"adamw": torch.optim.AdamW([*self.lora], lr=lr, weight_decay=decay, fused=True)}

    def train_step(
        self, batch: Batch, optimizers: Mapping[str, torch.optim.Optimizer], clock: Clock
    ) -> Losses:
        """One update on the mean loss of all predicted tokens, `micro_batch` rows at a time."""
        optimizer = optimizers["adamw"]
        optimizer.zero_grad(set_to_none=True)
        count = targets(batch.data).ge(0).sum().clamp(min=1)
        loss = torch.zeros((), device=batch.data.device)
        with self._base.using(self.adapter, training=True) as model:
            if self.params.checkpointing != model.is_activation_checkpointing:
                if self.params.checkpointing:
                    model.activation_checkpointing_enable({"use_reentrant": False})
                else:  # another network of this base has it
                    model.activation_checkpointing_disable()
            for part in torch.split(batch.data, self.params.micro_batch):
                share = total_loss(model, part, packed=self.params.packing) / count
                share.backward()  # type: ignore[no-untyped-call]  # torch's annotation is missing
                loss += share.detach()
        size = nn.utils.clip_grad_norm_([*self.lora], self.params.clip)
        rate = warm_up(clock, self.params.warmup) * (1 - min(clock.progress, 1))
        step(optimizer, self.params.lr * clock.rate * rate)
        return {"loss": loss, "gradient_norm": size.detach()}

    def validate(self, batch: Batch) -> Losses:
        """`loss` in nats a predicted token, and their `count`."""
        count = targets(batch.data).ge(0).sum().clamp(min=1)
        with self._base.using(self.adapter) as model:
            parts = torch.split(batch.data, self.params.micro_batch)
            packed = self.params.packing
            total = torch.stack([total_loss(model, part, packed=packed) for part in parts]).sum()
        return {"loss": total / count, "count": count}

    def stream(
        self, rows: Iterator[Row], draw: Draws, sampling: SamplingParams
    ) -> Iterator[list[Finished]]:
        """Continue each row's prompt, or answer it where there is a chat template."""
        settings = cast(HfSampling, sampling)
        tokenizer = self.chat_tokenizer(settings.chat)
        ends = {*known(self._base.model, "eos_token_id")}
        if tokenizer.end is not None:
            ends.add(tokenizer.end)
        generator = TextGenerator(self, tokenizer, settings, positions=self.positions, ends=ends)
        return generator.generate(rows, draw)

    def next_logits(self, ids: Tensor, mask: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Read ids (B, t) after those in the cache; returns logits float32 (B, V) and the cache.

        `mask` (B, T) is 1 where a position, old or new, has a token.
        """
        with self._base.using(self.adapter) as model:
            read = read_on if self.has_cache() else read_again
            return read(model, ids, mask, cache, positions=self.positions)

    def has_cache(self) -> bool:
        """Whether the base continues texts from a cache of keys and values, as import found."""
        found = own_record(self._config).get("has_cache", self._base.has_cache)
        if found is None:
            with self._base.using(self.adapter) as model:
                found = self._base.has_cache = has_cache(model)
        return bool(found)

    def next_slot_logits(self, ids: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
        """See `LanguageModel`."""
        with self._base.using(self.adapter) as model:
            return read_slots(model, ids, positions, cache)

    def has_slots(self) -> bool:
        """Whether the base can read a `SlotCache`."""
        with self._base.using(self.adapter) as model:
            if self._base.has_slots is None:
                self._base.has_slots = self.has_cache() and enable_slots(model)
            return self._base.has_slots

    def has_parallel_streams(self) -> bool:
        """See `Network`; forwards that change the model, or only batches, leave no gain."""
        return self.has_slots() and is_static(self._base.model)

    @property
    def positions(self) -> int:
        """The most tokens that the base reads."""
        return positions(self._config) or UNBOUNDED

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]  # torch overloads it
        """The adapter's tensors by the names of peft's files."""
        return {name: value.detach() for name, value in self._adapter_weights().items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load the adapter's tensors; `RuntimeError` where they do not fit this adapter."""
        named = self._adapter_weights()
        wrong = named.keys() ^ state_dict.keys()
        wrong |= {
            k for k in named.keys() & state_dict.keys() if named[k].shape != state_dict[k].shape
        }
        if wrong:
            raise RuntimeError(f"{len(wrong)} tensors differ in name or shape, {min(wrong)} first")
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(state_dict[name])

    @property
    def _base(self) -> Base:
        if self.base is None:
            raise RuntimeError("open() comes first: the base is missing")
        return self.base

    @property
    def tokenize(self) -> Callable[[str], Sequence[int]] | None:
        """See `Network`."""
        return self.chat_tokenizer("never").plain_tokens if self._tokenizer is not None else None

    def chat_tokenizer(self, chat: Chat) -> ChatTokenizer:
        """The version's tokenizer, with its chat template if `chat` allows it."""
        if self._tokenizer is None:
            raise RuntimeError("load_files() comes first: the tokenizer is missing")
        return ChatTokenizer(self._tokenizer, chat)

    def _adapter_weights(self) -> dict[str, nn.Parameter]:
        return self._base.adapter_weights(self.adapter) if self.adapter else {}

    def _add(self, config: LoraConfig) -> None:
        self.adapter = self._base.add_adapter(config)
        weakref.finalize(self, self._base.drop_adapter, self.adapter).atexit = False
        self.lora = nn.ParameterList(self._adapter_weights().values())

    def _fresh_config(self) -> LoraConfig:
        return LoraConfig(
            task_type="CAUSAL_LM",
            r=self.params.rank,
            lora_alpha=cast(int, self.params.alpha),
            lora_dropout=self.params.dropout,
            target_modules=self.params.targets or "all-linear",
            fan_in_fan_out=has_conv1d(self._base.model),
        )


NETWORK = CausalModel

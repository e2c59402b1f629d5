"""A weight transfer engine that reads files: those of vLLM need GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from safetensors.torch import load_file
from vllm.distributed.weight_transfer.base import WeightTransferEngine
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from parity.extension import Extension


@dataclass
class Beginning:
    greeting: str


@dataclass
class Update:
    file: str


class FileTransfer(WeightTransferEngine):
    init_info_cls = Beginning
    update_info_cls = Update

    def init_transfer_engine(self, init_info: Beginning) -> None:
        if init_info.greeting != "hello":
            raise ValueError(f"this is no greeting: {init_info.greeting}")

    def start_weight_update(self) -> None:
        pass

    def finish_weight_update(self) -> None:
        pass

    def update_weights(self, update_info: dict[str, Any]) -> None:
        # vLLM's own waits for an accelerator after this, which a CPU isn't.
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: Update) -> None:
        self.model.load_weights(load_file(update_info.file).items())

    def shutdown(self) -> None:
        pass


class WeightsExtension(Extension):
    """For workers: vLLM imports this module for it before it makes the transfer engine."""


WeightTransferEngineFactory.register_engine("files", FileTransfer)

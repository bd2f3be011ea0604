"""LoRA: the weights stay as they are, and adapters next to them learn.

An adapter is the product of two small matrices, W + (alpha / rank) B A, with A random and B zero at
first (Hu et al. 2021). After training the products are added to the weights, so the bundle is like
any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sentimill.errors import UsageError
from sentimill_train.model.student import Preset, Student
from sentimill_train.optional_packages import check_installed

if TYPE_CHECKING:
    from peft import LoraModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """rank: of the adapter of each weight. alpha: the adapter is multiplied by alpha / rank."""

    rank: int = 8
    alpha: int = 16


def lora_of(wanted: bool, rank: int | None, alpha: int | None) -> Lora | None:
    """Return what --lora, --lora-rank and --lora-alpha ask for.

    Raises:
        UsageError: NO_LORA where one of the others is given without --lora.
    """
    if not wanted and (rank is not None or alpha is not None):
        raise UsageError("--lora-rank and --lora-alpha need --lora", reason="NO_LORA")
    default = Lora()
    return Lora(rank=rank or default.rank, alpha=alpha or default.alpha) if wanted else None


def check_lora(preset: Preset, *, train_embeddings: bool) -> None:
    """Raise UsageError where adapters cannot be learnt, before anything is read.

    LORA_ALONE with an option that learns the weights themselves, EXTRA_MISSING without peft.
    """
    if train_embeddings or preset == "tiny":
        other = "--train-embeddings" if train_embeddings else "--preset tiny"
        raise UsageError(
            f"--lora keeps the weights of the encoder as they are, and {other} learns them: leave"
            " one of the two out",
            reason="LORA_ALONE",
        )
    check_installed("--lora", "peft")


def add_adapters(student: Student, lora: Lora) -> LoraModel:
    """Add an adapter to every linear layer of the encoder; only these and the head are trained.

    Seed torch first: half of an adapter is random.
    """
    from peft import LoraConfig, LoraModel

    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear")
    return LoraModel(student.encoder, config, "default")


def merge_adapters(adapters: LoraModel) -> None:
    """Add what was learnt to the weights of the encoder, and take the adapters out of it."""
    adapters.merge_and_unload()

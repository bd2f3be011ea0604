"""LoRA: the weights of the encoder are frozen, and small adapters next to them are trained.

With an adapter, the weight W becomes W + (alpha / rank) B A; A starts random and B zero (Hu et al.
2021). After training the products are added to the weights, so the bundle is like any other.
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
    """rank: the rank of each adapter. alpha: each adapter is multiplied by alpha / rank."""

    rank: int = 8
    alpha: int = 16


def lora_of(wanted: bool, rank: int | None, alpha: int | None) -> Lora | None:
    """Return the settings from --lora, --lora-rank and --lora-alpha.

    Raises:
        UsageError: NO_LORA if one of the others is given without --lora.
    """
    if not wanted and (rank is not None or alpha is not None):
        raise UsageError("--lora-rank and --lora-alpha need --lora", reason="NO_LORA")
    default = Lora()
    return Lora(rank=rank or default.rank, alpha=alpha or default.alpha) if wanted else None


def check_lora(preset: Preset, *, train_embeddings: bool) -> None:
    """Raise UsageError where LoRA cannot be used, before anything is read.

    LORA_ALONE if another option trains the weights themselves, EXTRA_MISSING without peft.
    """
    if train_embeddings or preset == "tiny":
        other = "--train-embeddings" if train_embeddings else "--preset tiny"
        raise UsageError(
            f"--lora freezes the weights of the encoder, but {other} trains them: leave one of the"
            " two out",
            reason="LORA_ALONE",
        )
    check_installed("--lora", "peft")


def add_adapters(student: Student, lora: Lora) -> LoraModel:
    """Add an adapter to every linear layer of the encoder; only these and the head are trained.

    Seed torch first, because half of an adapter is random.
    """
    from peft import LoraConfig, LoraModel

    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear")
    return LoraModel(student.encoder, config, "default")


def merge_adapters(adapters: LoraModel) -> None:
    """Add the adapters to the weights of the encoder, and remove them."""
    adapters.merge_and_unload()

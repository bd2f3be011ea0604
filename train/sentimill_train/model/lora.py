"""LoRA: weights stay as they are, and a product of two small matrices beside each learns.

Hu et al. 2021: W + (alpha / rank) B A, with A random and B zero at first. The products are added to
the weights when training is over, so a bundle is the ordinary one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sentimill.errors import UsageError
from sentimill_train.model.student import Preset, Student
from sentimill_train.optional_packages import check_installed

if TYPE_CHECKING:
    from peft import LoraModel

__all__ = ["Lora", "add_adapters", "check_lora", "lora_of", "merge_adapters"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """rank: of what is learnt for each weight. alpha: it is multiplied by alpha / rank."""

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
    """Raise UsageError where adapters cannot be learnt: before anything is read.

    LORA_ALONE beside options that learn the weights themselves, EXTRA_MISSING without peft.
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
    """Put adapters beside every linear layer of the encoder; they and the head alone are trained.

    Seed torch first: half of an adapter is random.
    """
    from peft import LoraConfig, LoraModel

    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear")
    return LoraModel(student.encoder, config, "default")


def merge_adapters(adapters: LoraModel) -> None:
    """Add what was learnt to the weights of the encoder, and take the adapters out of it."""
    adapters.merge_and_unload()

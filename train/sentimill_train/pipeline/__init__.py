"""The pipeline of `train`, from reviews to a bundle, with one call for each stage."""

from sentimill_train.pipeline.inputs import starting_point
from sentimill_train.pipeline.train import Quiet, Train, Trained, Watcher

__all__ = ["Quiet", "Train", "Trained", "Watcher", "starting_point"]

"""This implementation against recorded outputs of the official one, on any directory that holds such a recording."""

from unveil.parity.judge import Result
from unveil.parity.run import Runner

__all__ = ["Result", "Runner"]

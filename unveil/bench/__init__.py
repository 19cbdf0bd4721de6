"""How fast it is: the same work by the plain loop, by SPRINT and by the engine, in one process."""

from unveil.bench.compare import Comparison, compare
from unveil.bench.many import Throughput, throughput
from unveil.bench.setup import Setup, set_up

__all__ = ["Comparison", "Setup", "Throughput", "compare", "set_up", "throughput"]

"""The letters of every tensor shape in this package, and the tensor types that use them.

B batch · L positions · P prefix · D width · H heads · K chosen experts · E experts · N tokens flattened ·
V vocabulary · C channels · h w grid. A signature reads `Float[Tensor, "B L D"]`; checks happen in the tests only.
"""

from jaxtyping import Bool, Complex, Float, Int, UInt8
from torch import Tensor

__all__ = ["Bool", "Complex", "Float", "Int", "Tensor", "UInt8"]

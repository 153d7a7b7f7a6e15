"""Several matrices in one product."""

from torch import nn


class StackedLinear(nn.Linear):
    """Matrices of one shape, one above the other: their outputs lie side by side.

    stacked: how many. An optimizer that works on whole matrices takes each by itself.
    """

    def __init__(self, in_features: int, out_features: int, stacked: int, *, bias: bool) -> None:
        super().__init__(in_features, stacked * out_features, bias=bias)
        self.stacked = stacked

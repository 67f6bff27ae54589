"""The variants of each family: {family: function that lists (name, config, kinds)}.

`kinds(name)` may give another kind than usual to a tensor; see formula.py."""

from . import attention, dense, experts, latent, windows

FAMILIES = {**dense.FAMILIES, **experts.FAMILIES, **windows.FAMILIES, **attention.FAMILIES, **latent.FAMILIES}

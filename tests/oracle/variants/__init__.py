"""The variants of each family: {family: function that lists (name, config, kinds)}.

`kinds(name)` may give another kind than usual to a tensor; see formula.py."""

from . import attention, dense, experts, gemma4, latent, recurrent, windows

FAMILIES = {**dense.FAMILIES, **experts.FAMILIES, **windows.FAMILIES, **attention.FAMILIES, **latent.FAMILIES, **recurrent.FAMILIES, **gemma4.FAMILIES}

"""What the variants of all families share."""


def quantized(bits, group, **tensors):
    """A quantization table; `tensors` has other settings for some, with `__` for a dot."""
    table = {"group_size": group, "bits": bits}
    for name, other in tensors.items():
        table[name.replace("__", ".")] = other if other is False else {"group_size": other[1], "bits": other[0]}
    return table


def usual(_name):
    return None


def each(base, *variants):
    """(name, config, kinds) of variants, each a name and what differs from `base`; None removes a key."""
    for name, changes, *kinds in variants:
        config = {key: value for key, value in {**base, **changes}.items() if value is not None}
        yield name, config, kinds[0] if kinds else usual

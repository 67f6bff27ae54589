"""What the variants of all families share."""


def quantized(bits, group, **tensors):
    """A quantization table; `tensors` has other settings for some, with `__` for a dot."""
    table = {"group_size": group, "bits": bits}
    for name, other in tensors.items():
        table[name.replace("__", ".")] = other if other is False else {"group_size": other[1], "bits": other[0]}
    return table


# Writes null, where None removes the key.
NULL = object()


def usual(_name):
    return None


def each(base, *variants):
    """(name, config, kinds, unused) of variants, each a name, what differs from `base`, and perhaps kinds and unused.

    None removes a key of the configuration. `unused` lists tensors that real folders have and mlx-lm drops."""
    for name, changes, *others in variants:
        config = {key: value for key, value in {**base, **changes}.items() if value is not None}
        config = {key: None if value is NULL else value for key, value in config.items()}
        kinds, unused = (others + [usual, []][len(others) :])[:2]
        yield name, config, kinds, unused

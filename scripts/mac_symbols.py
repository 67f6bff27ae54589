"""Accounts for every symbol that a Mac executable takes from elsewhere: MLX's dylib, or a known part of macOS.

Usage: python mac_symbols.py EXECUTABLE LIBMLX
"""

import re
import struct
import sys

# What every Mac has. A name that matches nothing here is a mistake, and so is one of ours or MLX's that is not in libmlx.
APPLE = re.compile(
    r"^(_(NS|CF|kCF|k?Sec|SSL|CMS|CC|Authorization|IO|SC|kSC|kIO|OBJC_|MTL|NSConcrete)\w*"  # frameworks
    r"|__Z\w+"  # C++ runtime and standard library
    r"|_{1,4}[a-z][\w$]*"  # libSystem and libobjc: C functions and what headers turn them into
    r"|__(Unwind|NSGet|Block|DefaultRuneLocale|NSConcrete)\w*"
    r"|dyld_stub_binder)$"
)


def symbols(path):
    """(defined, undefined) external symbols of a 64-bit Mach-O file, from its symbol table (mach-o/nlist.h)."""
    with open(path, "rb") as file:
        data = file.read()
    magic, _, _, _, commands, _, _, _ = struct.unpack_from("<8I", data)
    if magic != 0xFEEDFACF:
        sys.exit(f"error: {path} is no 64-bit Mach-O file")
    defined, undefined, at = set(), set(), 32
    for _ in range(commands):
        command, size = struct.unpack_from("<2I", data, at)
        if command == 2:  # LC_SYMTAB
            table, count, strings, _ = struct.unpack_from("<4I", data, at + 8)
            for entry in range(count):
                name_at, kind, _, _, _ = struct.unpack_from("<IBBHQ", data, table + 16 * entry)
                if kind & 0xE0 or not kind & 0x01:  # Debugging entries and local symbols.
                    continue
                end = data.index(b"\0", strings + name_at)
                name = data[strings + name_at : end].decode()
                (undefined if kind & 0x0E == 0 else defined).add(name)
        at += size
    return defined, undefined


def main(executable, libmlx):
    mlx, _ = symbols(libmlx)
    _, undefined = symbols(executable)
    from_mlx = undefined & mlx
    unknown = [name for name in sorted(undefined - mlx) if "mlx" in name or "hive" in name or not APPLE.match(name)]
    for name in unknown:
        print(f"error: {name} is in neither libmlx nor a known part of macOS", file=sys.stderr)
    rest = len(undefined) - len(from_mlx) - len(unknown)
    print(f"{len(undefined)} symbols from outside: {len(from_mlx)} from MLX, {rest} from macOS, {len(unknown)} unknown")
    sys.exit(1 if unknown or not from_mlx else 0)


main(*sys.argv[1:])

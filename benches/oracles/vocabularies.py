"""Tokenizers of every kind that HiveMind reads, with the vocabularies of published models.

A `tokenizer.json` is put together in the exact shape of its family's, around a vocabulary that a package carries; two are
trained here, on this folder's own texts. GGUF files hold the vocabulary alone. `index.json` says what each is and which
`tokenizer.json` has the ids to expect.
"""

import base64
import json
import random
import re
import tempfile

import texts
from shared import FOLDER, TEMPLATES, TOKENIZERS, cache

CONTROL, USER_DEFINED = 3, 4

GPT_2_ENDINGS = r"'s|'t|'re|'ve|'m|'ll|'d"
LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN_2 = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")

BYTE_LEVEL_DECODER = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
SPACE_TO_MARK = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
MARK_TO_SPACE = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def byte_level(use_regex):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def split(pattern, behavior="Isolated"):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}


def sequence(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


def added(index, content, special=True, **flags):
    return {"id": index, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special} | flags


def tokenizer(model, added_tokens, normalizer=None, pre_tokenizer=None, decoder=None):
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added_tokens, "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": None, "decoder": decoder, "model": model,
    }


def bpe(vocabulary, merges, **more):
    return {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
        "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocabulary, "merges": merges,
    } | more


class Vocabulary:
    """Tokens, their types and what orders them, out of a GGUF file or a SentencePiece model."""

    def __init__(self, tokens, types, scores=None, merges=None, fields=None):
        self.tokens, self.types, self.scores, self.merges, self.fields = tokens, types, scores, merges, fields or {}

    @classmethod
    def of_gguf(cls, path):
        from gguf import GGUFReader

        fields = {name: field.contents() for name, field in GGUFReader(path).fields.items() if name.startswith("tokenizer")}
        take = lambda name: fields.get(f"tokenizer.ggml.{name}")
        return cls(take("tokens"), take("token_type"), take("scores"), take("merges"), fields)

    @classmethod
    def of_sentencepiece(cls, model):
        from sentencepiece import sentencepiece_model_pb2

        proto = sentencepiece_model_pb2.ModelProto()
        proto.ParseFromString(model)
        pieces = proto.pieces
        return cls([piece.piece for piece in pieces], [piece.type for piece in pieces], [piece.score for piece in pieces])

    def without_padding(self):
        """Converters fill a vocabulary up to the rows of the embedding; the published tokenizer knows nothing of those."""
        keep = max(at for at, token in enumerate(self.tokens) if not re.fullmatch(r"\[PAD\d+\]", token)) + 1
        scores = self.scores and self.scores[:keep]
        return Vocabulary(self.tokens[:keep], self.types[:keep], scores, self.merges, self.fields)

    def ids(self):
        return {token: at for at, token in enumerate(self.tokens)}

    def marked(self):
        return [added(at, self.tokens[at], kind == CONTROL) for at, kind in enumerate(self.types) if kind in (CONTROL, USER_DEFINED)]

    def byte_level(self, pre_tokenizer, normalizer=None, added_tokens=None, **more):
        added_tokens = self.marked() if added_tokens is None else added_tokens
        # Those at the end stand beside the vocabulary in published files, any others in it.
        known, outside = self.ids(), {token["content"] for token in added_tokens}
        while self.tokens[len(known) - 1] in outside:
            del known[self.tokens[len(known) - 1]]
        merges = [merge.split(" ") for merge in self.merges]
        return tokenizer(bpe(known, merges, **more), added_tokens, normalizer, pre_tokenizer, BYTE_LEVEL_DECODER)

    def sentencepiece(self, how, added_tokens=None):
        """`how`: as `prepend` of the older shape, `plain`, or one of Metaspace's schemes."""
        from transformers.tokenization_utils_base import generate_merges

        ids = self.ids()
        special = added_tokens or [added(at, self.tokens[at]) for at, kind in enumerate(self.types) if kind in (2, CONTROL)]
        # By score, as published files have them: runs of blanks come early in these vocabularies, and last by score.
        model = bpe(ids, generate_merges(ids, dict(zip(self.tokens, self.scores))), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
        decoders = [MARK_TO_SPACE, {"type": "ByteFallback"}, {"type": "Fuse"}]
        if how in ("prepend", "plain"):
            first = [{"type": "Prepend", "prepend": "▁"}] if how == "prepend" else []
            normalizer, pre = {"type": "Sequence", "normalizers": [*first, SPACE_TO_MARK]}, None
        else:
            normalizer, pre = None, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": how, "split": False}
        if how not in ("plain", "never"):
            decoders.append(STRIP)
        return tokenizer(model, special, normalizer, pre, {"type": "Sequence", "decoders": decoders})


def members(name, wanted):
    from prepare import members

    return members(name, wanted)


def llama_cpp(name):
    """One of llama.cpp's test vocabularies, as a file."""
    path = FOLDER / "dl" / f"ggml-vocab-{name}.gguf"
    if not path.exists():
        (_, content), = members("llama-cpp-python", rf"/llama\.cpp/models/ggml-vocab-{re.escape(name)}\.gguf$")
        path.write_bytes(content)
    return path


def mistral(name):
    (_, content), = members("mistral-common", rf"data/{re.escape(name)}$")
    return content


def deepseek_letters():
    """The letters of DeepSeek LLM's own pattern stand in llama.cpp's list of patterns as they stand in the published file."""
    (_, source), = members("llama-cpp-python", r"/llama\.cpp/src/llama-vocab\.cpp$")
    return re.search(r'case LLAMA_VOCAB_PRE_TYPE_DEEPSEEK_LLM:.*?"\\\\s\?\[(A-Z[^"]*)\]\+"', source.decode(), re.DOTALL).group(1)


def bytes_to_letters():
    """GPT-2's letters for the 256 bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def tekken():
    """Mistral's Tekken as its `tokenizer.json` has it: ranks of byte strings become merges."""
    source = json.loads(mistral("tekken_240718.json"))
    size, specials = source["config"]["default_vocab_size"], source["config"]["default_num_special_tokens"]
    names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]"]
    names += [f"<SPECIAL_{at}>" for at in range(len(names), specials)]
    ranks = {base64.b64decode(row["token_bytes"]): row["rank"] for row in source["vocab"][: size - specials]}
    letters = bytes_to_letters()
    text = lambda token: "".join(letters[byte] for byte in token)
    merges = []
    for token, rank in ranks.items():
        halves = [(token[:at], token[at:]) for at in range(1, len(token))]
        known = sorted((ranks[left], ranks[right], left, right) for left, right in halves if left in ranks and right in ranks)
        merges += [(rank, text(left), text(right)) for _, _, left, right in known]
    merges.sort(key=lambda merge: merge[0])
    tokens = names + [text(token) for token in ranks]
    types = [CONTROL] * specials + [1] * len(ranks)
    vocabulary = Vocabulary(tokens, types, merges=[f"{left} {right}" for _, left, right in merges])
    pattern = sequence(split(source["config"]["pattern"]), byte_level(False))
    return vocabulary, vocabulary.byte_level(pattern, ignore_merges=True)


def trained_unigram():
    """A unigram model with byte fallback, trained on the texts; a family of its own in real files, small vocabularies aside."""
    import sentencepiece

    with tempfile.TemporaryDirectory() as folder:
        # The trainer needs far more than 350 lines; the words of the texts, mixed, are as good.
        words = [word for text in texts.nasty() for word in text.split()] + [*"abcdefghijklmnopqrstuvwxyz0123456789"]
        chance = random.Random(5)
        lines = (" ".join(chance.choices(words, k=9)).replace("\n", " ") for _ in range(4000))
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([line for line in lines if len(line) < 4000]), model_prefix=f"{folder}/unigram", vocab_size=3000, model_type="unigram", byte_fallback=True,
            normalization_rule_name="identity", remove_extra_whitespaces=False, user_defined_symbols=["<|im_start|>", "<|im_end|>"],
            minloglevel=2, num_threads=1, hard_vocab_limit=False, character_coverage=0.99,
        )
        with open(f"{folder}/unigram.model", "rb") as file:
            vocabulary = Vocabulary.of_sentencepiece(file.read())
    model = {"type": "Unigram", "unk_id": 0, "vocab": list(zip(vocabulary.tokens, vocabulary.scores)), "byte_fallback": True}
    special = [added(at, token) for at, token in enumerate(vocabulary.tokens[:5])]
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return tokenizer(model, special, None, metaspace, metaspace)


def trained_byte_level():
    """A small byte-level BPE without added tokens in its vocabulary, with everything in one piece: no cut at all."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    small = Tokenizer(models.BPE())
    small.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    small.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    small.train_from_iterator(texts.nasty(), trainer)
    return json.loads(small.to_str())


def write_gguf(path, vocabulary, model, **fields):
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_name(path.stem)
    writer.add_tokenizer_model(model)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    for name, value in fields.items():
        key = f"tokenizer.ggml.{name}"
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_string(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def build():
    from tokenizers import Tokenizer

    TOKENIZERS.mkdir(parents=True, exist_ok=True)
    index = {}

    def keep(name, made, template, bos, eos, **more):
        folder = TOKENIZERS / name
        folder.mkdir(exist_ok=True)
        (folder / "tokenizer.json").write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")
        known = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
        assert all(known[token["content"]] == token["id"] for token in made["added_tokens"]), f"{name}: an added token has another id"
        index[name] = {"path": f"{name}/tokenizer.json", "expects": name, "template": template, "bos_token": bos, "eos_token": eos} | more

    def keep_gguf(name, expects, source=None, **more):
        path = TOKENIZERS / f"{name}.gguf"
        if source:
            path.write_bytes(source.read_bytes())
        like = {key: index[expects][key] for key in ("template", "bos_token", "eos_token")}
        index[name] = {"path": path.name, "expects": expects} | like | more
        return path

    digits_apart = sequence({"type": "Digits", "individual_digits": True}, byte_level(True))
    nfc = {"type": "NFC"}

    # Byte-level BPE.
    gpt_2 = Vocabulary.of_gguf(llama_cpp("gpt-2"))
    # `#version: 0.2` heads the published list of merges, and some converters took it along.
    keep("gpt-2", gpt_2.byte_level(byte_level(True)), "unsloth-vicuna", "<|endoftext|>", "<|endoftext|>")
    llama_3 = Vocabulary.of_gguf(llama_cpp("llama-bpe"))
    keep("llama-3", llama_3.byte_level(sequence(split(LLAMA_3), byte_level(False)), ignore_merges=True),
         "meta-llama-Llama-3.1-8B-Instruct", "<|begin_of_text|>", "<|eot_id|>")
    qwen_2 = Vocabulary.of_gguf(llama_cpp("qwen2")).without_padding()
    keep("qwen-2", qwen_2.byte_level(sequence(split(QWEN_2), byte_level(False)), nfc), "Qwen-Qwen2.5-7B-Instruct", None, "<|im_end|>")
    starter = cache() / "starter" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    smollm_2 = Vocabulary.of_gguf(starter)
    (TEMPLATES / "starter-SmolLM2.jinja").write_text(smollm_2.fields["tokenizer.chat_template"], encoding="utf-8")
    (TEMPLATES / "starter-SmolLM2.json").write_text(json.dumps({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}))
    keep("smollm-2", smollm_2.byte_level(digits_apart), "starter-SmolLM2", "<|im_start|>", "<|im_end|>")
    deepseek = Vocabulary.of_gguf(llama_cpp("deepseek-llm")).without_padding()
    deepseek_cut = sequence(
        split(r"[\r\n]"), split(rf"\s?[{deepseek_letters()}]+"), split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), split(r"\s+$"),
        split("[一-龥ࠀ-一가-퟿]+"), {"type": "Digits", "individual_digits": True}, byte_level(False),
    )
    keep("deepseek-llm", deepseek.byte_level(deepseek_cut), "xinference-deepseek-chat", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
    (_, deepseek_v4), = members("xinference", r"tokenizer_assets/deepseek_v4[^/]*/tokenizer\.json$")
    keep("deepseek-v4", json.loads(deepseek_v4), "deepseek-ai-DeepSeek-V3.1", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
    tekken_vocabulary, tekken_made = tekken()
    keep("tekken", tekken_made, "mistralai-Mistral-Nemo-Instruct-2407", "<s>", "</s>")
    starcoder = Vocabulary.of_gguf(llama_cpp("starcoder"))
    keep("starcoder", starcoder.byte_level(digits_apart), "unsloth-alpaca", "<|endoftext|>", "<|endoftext|>")
    falcon = Vocabulary.of_gguf(llama_cpp("falcon"))
    falcon_cut = sequence({"type": "Punctuation", "behavior": "Contiguous"}, byte_level(True), {"type": "Digits", "individual_digits": False}, split("[0-9][0-9][0-9]"))
    keep("falcon", falcon.byte_level(falcon_cut), "unsloth-zephyr", "<|endoftext|>", "<|endoftext|>")
    neox = Vocabulary.of_gguf(llama_cpp("gpt-neox")).without_padding()
    runs = [added(at, token, kind == CONTROL, normalized=kind != CONTROL) for at, (token, kind) in enumerate(zip(neox.tokens, neox.types)) if kind in (3, 4)]
    keep("gpt-neox", neox.byte_level(byte_level(True), nfc, runs), "unsloth-vicuna", "<|endoftext|>", "<|endoftext|>")
    command_r = Vocabulary.of_gguf(llama_cpp("command-r")).without_padding()
    markers = [added(at, token) for at, (token, kind) in enumerate(zip(command_r.tokens, command_r.types)) if kind in (3, 4)]
    keep("command-r", command_r.byte_level(digits_apart, nfc, markers), "axolotl-cohere", "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>")
    keep("trained-byte-level", trained_byte_level(), "unsloth-vicuna", "<s>", "</s>")

    # SentencePiece BPE with byte fallback.
    llama_2 = Vocabulary.of_gguf(llama_cpp("llama-spm"))
    keep("llama-2", llama_2.sentencepiece("prepend"), "unsloth-llama", "<s>", "</s>")
    keep("llama-2-plain", llama_2.sentencepiece("plain"), "unsloth-llama", "<s>", "</s>")
    mistral_1 = Vocabulary.of_sentencepiece(mistral("tokenizer.model.v1"))
    mistral_2 = Vocabulary.of_sentencepiece(mistral("mistral_instruct_tokenizer_240216.model.v2"))
    mistral_3 = Vocabulary.of_sentencepiece(mistral("mistral_instruct_tokenizer_240323.model.v3"))
    mistral_7 = Vocabulary.of_sentencepiece(mistral("mistral_instruct_tokenizer_241114.model.v7"))
    keep("mistral-1-prepend", mistral_1.sentencepiece("prepend"), "unsloth-zephyr", "<s>", "</s>")
    keep("mistral-1-first", mistral_1.sentencepiece("first"), "unsloth-zephyr", "<s>", "</s>")
    keep("mistral-2-always", mistral_2.sentencepiece("always"), "unsloth-vicuna", "<s>", "</s>")
    keep("mistral-3-prepend", mistral_3.sentencepiece("prepend"), "axolotl-mistral_v2v3", "<s>", "</s>")
    keep("mistral-3-first", mistral_3.sentencepiece("first"), "axolotl-mistral_v2v3", "<s>", "</s>")
    keep("mistral-7-never", mistral_7.sentencepiece("never"), "axolotl-mistral_v1", "<s>", "</s>")
    phi_3 = Vocabulary.of_gguf(llama_cpp("phi-3")).without_padding()
    # Phi-3's own flags: what ends or begins a turn swallows the blanks after it.
    flags = lambda token: {"rstrip": token in ("</s>",) or token.startswith("<|") and token != "<|endoftext|>"}
    phi_added = [added(at, token, token != "</s>", **flags(token)) for at, token in enumerate(phi_3.tokens) if at < 3 or at >= 32000]
    keep("phi-3", phi_3.sentencepiece("prepend", phi_added), "trl-phi3", "<s>", "<|end|>")
    both_flags = lambda token: {"lstrip": token.startswith("<|"), "rstrip": token in ("<|user|>", "<|end|>")}
    phi_both = [added(at, token, token != "</s>", **both_flags(token)) for at, token in enumerate(phi_3.tokens) if at < 3 or at >= 32000]
    keep("phi-3-lstrip", phi_3.sentencepiece("prepend", phi_both), "trl-phi3", "<s>", "<|end|>")
    gemma = Vocabulary.of_gguf(llama_cpp("gemma-4"))
    gemma_model = bpe(gemma.ids(), [merge.split(" ", 1) for merge in gemma.merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    gemma_cut = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    keep("gemma-4", tokenizer(gemma_model, gemma.marked(), SPACE_TO_MARK, gemma_cut, {"type": "Sequence", "decoders": [MARK_TO_SPACE, {"type": "ByteFallback"}, {"type": "Fuse"}]}),
         "google-gemma-4-31B-it", "<bos>", "<turn|>")

    # Unigram.
    xlm = Vocabulary.of_gguf(llama_cpp("nomic-bert-moe")).without_padding()
    # The converter moved XLM-RoBERTa's pieces to where its ids are; a mask ends the vocabulary.
    charsmap = base64.b64encode(bytes(byte & 255 for byte in xlm.fields["tokenizer.ggml.precompiled_charsmap"])).decode()
    xlm_model = {"type": "Unigram", "unk_id": 3, "vocab": list(zip(xlm.tokens, xlm.scores)), "byte_fallback": False}
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    precompiled = {"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": charsmap}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]}
    xlm_added = [added(at, token, lstrip=token == "<mask>") for at, token in enumerate(xlm.tokens) if xlm.types[at] in (2, 3)]
    keep("xlm-roberta", tokenizer(xlm_model, xlm_added, precompiled, sequence({"type": "WhitespaceSplit"}, metaspace), metaspace), "unsloth-vicuna", "<s>", "</s>")
    keep("trained-unigram", trained_unigram(), "unsloth-chatml", "<s>", "<|im_end|>")

    # GGUF: llama.cpp's own files, and files in its converter's shape.
    for name, expects in [("gpt-2", "gpt-2"), ("llama-bpe", "llama-3"), ("qwen2", "qwen-2"), ("deepseek-llm", "deepseek-llm"), ("starcoder", "starcoder"),
                          ("falcon", "falcon"), ("command-r", "command-r"), ("llama-spm", "llama-2"), ("phi-3", "phi-3")]:
        keep_gguf(f"llama.cpp-{name}", expects, llama_cpp(name))
    index["llama.cpp-command-r"]["differs"] = "llama.cpp normalizes nothing; Hugging Face makes NFC of it"
    index["llama.cpp-qwen2"]["differs"] = "llama.cpp normalizes nothing; Hugging Face makes NFC of it"
    index["llama.cpp-deepseek-llm"]["differs"] = "llama.cpp's pattern takes U+2029 otherwise"
    index["llama.cpp-falcon"]["differs"] = "llama.cpp's pattern takes rare blanks and punctuation otherwise"
    index["llama.cpp-phi-3"]["differs"] = "the format has no place for rstrip; llama.cpp strips as Hugging Face does, since the file is called Phi3"
    write_gguf(keep_gguf("smollm", "smollm-2"), smollm_2, "gpt2", pre="smollm", bos_token_id=1, eos_token_id=2, add_bos_token=False)
    plain = tokenizer(bpe(*(lambda made: (made["vocab"], made["merges"]))(gpt_2.byte_level(byte_level(True))["model"])), gpt_2.marked(), None,
                      sequence(split(r"[\p{P}\$\+<=>\^~\|]+"), split(GPT_2_ENDINGS + r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"),
                               split(r"\p{N}+"), split("[0-9][0-9][0-9]"), byte_level(False)), BYTE_LEVEL_DECODER)
    keep("gpt-2-default", plain, "unsloth-vicuna", "<|endoftext|>", "<|endoftext|>")
    why = "no pre-tokenizer named: llama.cpp's own default, which no published tokenizer has"
    write_gguf(keep_gguf("gpt-2-default-gguf", "gpt-2-default", differs=why), gpt_2, "gpt2", pre="default", bos_token_id=50256, eos_token_id=50256)
    write_gguf(keep_gguf("gpt-2-no-pre-gguf", "gpt-2-default", differs=why), gpt_2, "gpt2", bos_token_id=50256, eos_token_id=50256)
    write_gguf(keep_gguf("tekken-gguf", "tekken", differs="llama.cpp's pattern knows no combining marks"), tekken_vocabulary, "gpt2", pre="tekken", bos_token_id=1, eos_token_id=2)
    write_gguf(keep_gguf("mistral-1-gguf", "mistral-1-prepend"), mistral_1, "llama", pre="default", bos_token_id=1, eos_token_id=2, unknown_token_id=0)
    write_gguf(keep_gguf("mistral-3-gguf", "mistral-3-prepend"), mistral_3, "llama", pre="default", bos_token_id=1, eos_token_id=2, unknown_token_id=0, add_space_prefix=True)
    write_gguf(keep_gguf("llama-2-plain-gguf", "llama-2-plain"), llama_2, "llama", pre="default", bos_token_id=1, eos_token_id=2, unknown_token_id=0, add_space_prefix=False)
    # llama.cpp puts the first token before a prompt where the file says so, or for these kinds where it says nothing.
    for name, row in index.items():
        if row["path"].endswith(".gguf"):
            fields = Vocabulary.of_gguf(TOKENIZERS / row["path"]).fields
            by_kind = fields["tokenizer.ggml.model"] == "llama" or fields.get("tokenizer.ggml.pre") in ("llama-bpe", "tekken")
            if fields.get("tokenizer.ggml.add_bos_token", by_kind):
                row["leading"] = fields["tokenizer.ggml.bos_token_id"]
    (TOKENIZERS / "index.json").write_text(json.dumps(index, indent=1, ensure_ascii=False), encoding="utf-8")
    check()
    print(f"{sum(row['path'].endswith('.json') for row in index.values())} tokenizer.json and {sum(row['path'].endswith('.gguf') for row in index.values())} GGUF files in {TOKENIZERS}")


def check():
    """What is put together here encodes as the published files do: llama.cpp's archive keeps texts with the ids of the true ones."""
    from tokenizers import Tokenizer

    for name, theirs in [("gpt-2", "gpt-2"), ("llama-3", "llama-bpe"), ("qwen-2", "qwen2"), ("deepseek-llm", "deepseek-llm"), ("starcoder", "starcoder"),
                         ("falcon", "falcon"), ("command-r", "command-r"), ("gpt-neox", "mpt"), ("llama-2", "llama-spm"), ("phi-3", "phi-3"), ("gemma-4", "gemma-4")]:
        files = dict(members("llama-cpp-python", rf"/llama\.cpp/models/ggml-vocab-{re.escape(theirs)}\.gguf\.(inp|out)$"))
        asked, ids = (next(content for path, content in files.items() if path.endswith(end)).decode() for end in ("inp", "out"))
        made = Tokenizer.from_file(str(TOKENIZERS / name / "tokenizer.json"))
        for text, wanted in zip(asked.split("\n__ggml_vocab_test__\n"), ids.split("\n")):
            got = made.encode(text, add_special_tokens=False).ids
            assert got == [int(id) for id in wanted.split()], f"{name}: {text!r} is {wanted}, not {got}"

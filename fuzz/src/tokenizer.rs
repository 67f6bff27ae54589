//! Tokenizers: a `tokenizer.json`, and what text becomes with it.

use hive_text::Tokenizer;

/// Builds a tokenizer, encodes a text and decodes the tokens. Returns whether it could be built.
pub fn run(data: &[u8]) -> bool {
    let Ok(tokenizer) = Tokenizer::from_json(data) else { return false };
    for text in ["Hello, wörld!  12345\n\t<s> 日本 \u{0301}", "a", ""] {
        for tokens in [tokenizer.encode(text), tokenizer.encode_literal(text)].into_iter().flatten() {
            let _ = tokenizer.decode(&tokens);
        }
        let _ = tokenizer.special_tokens().find(text).count();
    }
    let _ = tokenizer.decode(&[0, 1, u32::MAX]);
    true
}

/// One of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    [
        r#"{"version":"1.0","added_tokens":[{"id":0,"content":"<s>","single_word":false,"lstrip":true,"rstrip":false,"normalized":false,"special":true}],"normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]},"pre_tokenizer":null,"post_processor":null,"decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},"model":{"type":"BPE","unk_token":"<s>","byte_fallback":true,"fuse_unk":true,"vocab":{"<s>":0,"a":1,"b":2,"ab":3,"l":4,"▁":5},"merges":["a b"]}}"#,
        r#"{"version":"1.0","added_tokens":[],"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"(?i:'s|'t)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}]},"post_processor":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":false,"use_regex":true},"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},"model":{"type":"BPE","ignore_merges":true,"vocab":{"H":0,"e":1,"He":2,"l":3,"Ġ":4},"merges":[["H","e"]]}}"#,
        r#"{"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":false},"post_processor":null,"decoder":{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":false},"model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0.0],["a",-1.5],["▁",-2.0],["lo",-3.0]],"byte_fallback":false}}"#,
        r#"{"version":"1.0","added_tokens":[],"normalizer":{"type":"Replace","pattern":{"Regex":"\\s+"},"content":" "},"pre_tokenizer":{"type":"Digits","individual_digits":true},"post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A","type_id":0}}],"pair":[{"Sequence":{"id":"A","type_id":0}}],"special_tokens":{}},"decoder":null,"truncation":{"max_length":1,"strategy":"LongestFirst","stride":0,"direction":"Right"},"padding":{"strategy":"BatchLongest","direction":"Right","pad_to_multiple_of":0,"pad_id":0,"pad_type_id":0,"pad_token":"a"},"model":{"type":"BPE","vocab":{"1":0,"2":1,"12":2},"merges":["1 2"]}}"#,
    ]
    .map(|json| json.as_bytes().to_vec())
    .to_vec()
}

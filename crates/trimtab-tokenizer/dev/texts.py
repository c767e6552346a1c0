"""Texts that tell tokenizers apart. Knows no tokenizer."""

TEXTS = [
    "", " ", "  ", "   ", "\t", "\n", "\n\n", "\n\n\n", "\t\n", " \n \n\n  \n   x",
    "Hello world", " Hello world", "  Hello  world  ", "Hello, world!", "HELLO WORLD", "hello_world helloWorld HelloWorld",
    "I'm can't WE'LL they'Re 'tis", "3", "33", "333", "3333 33333", "3.14159 and 1,000,000.00", "x=10**9+7;", "½ ² Ⅷ ٣",
    "The quick brown fox jumps over the lazy dog.", "Once upon a time, there was a little girl named Lily.",
    "def f(x):\n    return x ** 2  # comment\n\n\nclass A:\n\tpass\n", "    if (a && b || !c) {\r\n        i++;\r\n    }\r\n",
    "http://example.org/a?b=c&d=%20#e", "<|im_start|>user\nHi<|im_end|>\n", "<s>[INST] x [/INST]</s>", "<0x41> <unk> <pad>",
    "naïve café Äpfel Œuvre", "нещо на Български", "Cửa Việt", "日本語のテキスト。中文字符", "한국어 문장", "עברית العربية",
    "កាន់តែពិសេសអាចខលចេញ", "🚀 (normal) 😶‍🌫️ (joined) ✅", "e\u0301 vs é", "a\u200bb\ufeffc", "\u00a0\u2003\u3000wide",
    "▁lower▁block▁", "a ▁ b", "null\x00byte \x7f\x1b[0m", "!!!!!! ... --- *** ???", "$100 €50 £20 #tag @name 50%",
    "aaaaaaaaaaaaaaaaaaaaaaaa", "abababababab", "     " * 9 + "x", "end with space ", "end with newline\n",
    "MiXeD CaSe WoRdS", "don\u2019t \u201cquote\u201d \u2014 dash\u2026", "\U00020000\U0010ffff\ue000",
]

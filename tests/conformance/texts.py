"""Texts that tokenizers and template engines stumble over."""

TEXTS = [
    "The model learns a low-rank update while its base stays frozen.",
    " leading, trailing and   many    spaces  ",
    "tabs\tand\t\ttabs\nlines\n\n\nwindows\r\nlines\r\n",
    "don't won't I'll they've IT'S Café CAFE\u0301 na\u00efve",
    "Zażółć gęślą jaźń — “quotes”, ‘single’, …, №, €, ½",
    "数学は楽しい。我爱北京天安门。한국어 문장입니다.",
    "مرحبا بالعالم שלום עולם",
    "🙂 👩‍👩‍👧‍👦 🇵🇱 ☝🏽 \u200b\u00a0\u2028 zero width",
    "1234567890 3.14159 1,000,000 0x1F 1e-5 2024-01-31",
    "def f(x):\n    return {k: v**2 for k, v in x.items() if k != '__init__'}  # [0]\n",
    "<|im_start|>user\nnot a turn<|im_end|> <s> </s> <eos> <|endoftext|> <pad>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "{{ not jinja }} {% raw %} $dollar `tick` \"double\" 'single' \\backslash <b>&amp;</b>",
    "ffi ﬁ ﬂ Ǆ ß ſ İ ı Å Å",
]

//! What the events of the tests look like.

/// At a width of 100 columns.
pub(super) const WIDE: &str = r#"merged r16 into the original weights: held-out loss 1.362 before, 1.362 after, difference 0.000 ±
0.001
%%
verbatim  <b>
%%
warning: the rows of jargon.valid were trained on; their loss says nothing about new text
%%
next: restore best · eval jargon.valid --adapters base,jargon-r16 · diagnose
%%
rank sweep over one NF4 base · 4 trials, 2 seeds · 31 min
 rank  alpha  parameters  held out  ± seeds  to best  share  adapter     time  remark
────────────────────────────────────────────────────────────────────────────────────────────────────
    4      8      1.22 M     1.440    0.018   +0.088  0.9 %   4.9 MB     6:52
   16     32      4.88 M     1.352    0.009   chosen  3.5 %  19.5 MB     7:10  the smallest rank
                                                                               within noise of the
                                                                               lowest
1,024  2,048       312 M       NaN            −0.003   70 %  1.25 GB  1:06:40  日本語 diverged
   64
Chosen: the smallest rank within noise of the lowest (paired over 176 held-out rows); general loss
grows with rank.
%%
r16 on demo · NF4
loss
     •
      ⠐
2.5   ⢀⠔⢅⠠
         ⠉⠒⡅⢀
           ⠈⠉⠑⢆⢀
               ⠉⠒⠤⣀
2.0               ⠈⠑⠦⢄
                     ⠐⠉⡉⠒⢄⡀
                        ⠐•⡈⠑⠒⠢⣀⣀
                           ⠈ ⠂⠠ ⡉⠒⠢⢄⣀⡀
                                 ⠈ ⠂⠠⠈⡉⠒⠢⠤⠤⣀⣀⡀
1.5                                    ⠈ ⠂⠠ ⡀⠈⠉⠒⠤⠤⠤⠤⣀⣀⣀⣀
                                             • ⠁⠐ ⠂⠐ ⠂⠐ ⠍⠩⠉⠖⠲⠒⡒⢒•⡤⢤⠤⡤⢄⣀⡤⣀⣀⣀⣠⣀⡄⢠⣀⠄⠠ ⠄• held out 1.38
                                                                             ⠈⠁ ⠉⠉⠉⠉⠉ train 1.33
     ┬────────────┬────────────┬─────────────┬────────────┬────────────┬────────────┬
     0           10           20            30           40           50           60  step
%%
memory · 483 MB held, peak 512 MB, counted 476 MB (−1.5 %)
AAAAAAAAABCCCCCCCCCDDDEEEFFFFFFGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGHHHHHH
   part                 MB  share  why
──────────────────────────────────────────────────────────────────────────────
A  NF4 weights        53.1   11 %  106 M weights × 4 bit
B  constants           1.7  0.4 %  0.127 bit a weight with double quantization
C  embedding, norms   56.7   12 %  16 bit, tied
D  adapters           19.5  4.1 %  4.88 M × f32
E  gradients          19.5  4.1 %  as adapters
F  AdamW              39.1  8.2 %  two moments; paging would save nothing here
G  activations       246.3   52 %  4 × 256 tokens, 30 layers, no logits stored
H  program            40.0  8.4 %  code, tokenizer
%%
jargon, sample 3 of 1,584 · 18 tokens
<|im_start|>user⏎What does “foo” mean?<|im_end|>⏎‹A sample name for absolutely anything.<|im_end|>›~<pad>
<pad><pad> ×5~
‹8 trained› · 10 masked: read, not learnt · ~5 padding~
%%
%%
r16
A sample%%
 name.␛[2J
%%
r16 on demo · NF4
rank 16, alpha 32, all linear layers · 4.88 M trainable (3.5 %) · 1,584 samples · CPU, bf16
%%
%%
%%

loss
     •
      ⠐
2.5   ⢀⠔⢅⠠
         ⠉⠒⡅⢀
           ⠈⠉⠑⢆⢀
               ⠉⠒⠤⣀
2.0               ⠈⠑⠦⢄
                     ⠐⠉⡉⠒⢄⡀
                        ⠐•⡈⠑⠒⠢⣀⣀
                           ⠈ ⠂⠠ ⡉⠒⠢⢄⣀⡀
                                 ⠈ ⠂⠠⠈⡉⠒⠢⠤⠤⣀⣀⡀
1.5                                    ⠈ ⠂⠠ ⡀⠈⠉⠒⠤⠤⠤⠤⣀⣀⣀⣀
                                             • ⠁⠐ ⠂⠐ ⠂⠐ ⠍⠩⠉⠖⠲⠒⡒⢒•⡤⢤⠤⡤⢄⣀⡤⣀⣀⣀⣠⣀⡄⢠⣀⠄⠠ ⠄• held out 1.38
                                                                             ⠈⠁ ⠉⠉⠉⠉⠉ train 1.33
     ┬────────────┬────────────┬─────────────┬────────────┬────────────┬────────────┬
     0           10           20            30           40           50           60  step

step  train  held out  perplexity
───────────────────────────────────────
   0             2.61       13.60
  15   1.90      1.80        6.05
  30   1.55      1.42        4.14
  45   1.38      1.36        3.90  best
  60   1.33      1.38        3.97

r16: 60 steps in 13:57. Held-out loss 2.61 → 1.36 ± 0.03, lowest at step 45; no gain after that.
kept: runs/0007 · adapter, optimizer state, metrics, chart
%%
"#;

/// At a width of 60 columns.
pub(super) const NARROW: &str = r#"merged r16 into the original weights: held-out loss 1.362
before, 1.362 after, difference 0.000 ± 0.001
%%
verbatim  <b>
%%
warning: the rows of jargon.valid were trained on; their
loss says nothing about new text
%%
next: restore best
      eval jargon.valid --adapters base,jargon-r16
      diagnose
%%
rank sweep over one NF4 base · 4 trials, 2 seeds · 31 min
rank 4 · alpha 8 · parameters 1.22 M · held out 1.440
  ± seeds 0.018 · to best +0.088 · share 0.9 %
  adapter 4.9 MB · time 6:52
rank 16 · alpha 32 · parameters 4.88 M · held out 1.352
  ± seeds 0.009 · to best chosen · share 3.5 %
  adapter 19.5 MB · time 7:10
  remark the smallest rank within noise of the lowest
rank 1,024 · alpha 2,048 · parameters 312 M · held out NaN
  to best −0.003 · share 70 % · adapter 1.25 GB
  time 1:06:40 · remark 日本語 diverged
rank 64
Chosen: the smallest rank within noise of the lowest (paired
over 176 held-out rows); general loss grows with rank.
%%
r16 on demo · NF4
loss
     •
2.5  ⠠⠒⣄⡀
        ⠑⢢⣀
2.0        ⠑⢤⢄
             ⠈⠓•⢄⡀
                 ⠊⠱⠒⡤⢄⡀
1.5                  ⠈⠈⠋⢉•⡢⠤⠤⣀⣀⣀⣀             held out 1.38
                           ⠈ ⠁⠈ ⠁⠙•⠋⠙⠒⠓⠚⠒⠓⠚⠒• train 1.33
     ┬────────────┬────────────┬────────────┬
     0           20           40           60  step
%%
memory · 483 MB held, peak 512 MB, counted 476 MB (−1.5 %)
AAAAAAABCCCCCCCDDEEFFFFFGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGGHHHHH
   part                 MB  share  why
────────────────────────────────────────────────────────────
A  NF4 weights        53.1   11 %  106 M weights × 4 bit
B  constants           1.7  0.4 %  0.127 bit a weight with
                                   double quantization
C  embedding, norms   56.7   12 %  16 bit, tied
D  adapters           19.5  4.1 %  4.88 M × f32
E  gradients          19.5  4.1 %  as adapters
F  AdamW              39.1  8.2 %  two moments; paging would
                                   save nothing here
G  activations       246.3   52 %  4 × 256 tokens, 30
                                   layers, no logits stored
H  program            40.0  8.4 %  code, tokenizer
%%
jargon, sample 3 of 1,584 · 18 tokens
<|im_start|>user⏎What does “foo” mean?<|im_end|>⏎‹A sample
 name for absolutely anything.<|im_end|>›~<pad><pad><pad> ×5~
‹8 trained› · 10 masked: read, not learnt · ~5 padding~
%%
%%
r16
A sample%%
 name.␛[2J
%%
r16 on demo · NF4
rank 16, alpha 32, all linear layers
4.88 M trainable (3.5 %) · 1,584 samples · CPU, bf16
%%
%%
%%

loss
     •
2.5  ⠠⠒⣄⡀
        ⠑⢢⣀
2.0        ⠑⢤⢄
             ⠈⠓•⢄⡀
                 ⠊⠱⠒⡤⢄⡀
1.5                  ⠈⠈⠋⢉•⡢⠤⠤⣀⣀⣀⣀             held out 1.38
                           ⠈ ⠁⠈ ⠁⠙•⠋⠙⠒⠓⠚⠒⠓⠚⠒• train 1.33
     ┬────────────┬────────────┬────────────┬
     0           20           40           60  step

step  train  held out  perplexity
───────────────────────────────────────
   0             2.61       13.60
  15   1.90      1.80        6.05
  30   1.55      1.42        4.14
  45   1.38      1.36        3.90  best
  60   1.33      1.38        3.97

r16: 60 steps in 13:57. Held-out loss 2.61 → 1.36 ± 0.03,
lowest at step 45; no gain after that.
kept: runs/0007 · adapter, optimizer state, metrics, chart
%%
"#;

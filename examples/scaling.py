"""The arithmetic of larger models: what GRPO with AdamW needs and how fast it could be, on 1, 8 and 64
GPUs.

    python examples/scaling.py            prints the table of docs/scaling.md

P parameters, L layers, w the width of the keys (heads of keys x channels), N GPUs with M bytes of
memory, F operations/s, B bytes/s:

    states       16 P / N                  bytes a GPU: weights and gradient in bfloat16 (2 + 2), float32 copy and two moments (4 + 8),
                                           sharded over all GPUs (ZeRO, arXiv:1910.02054, section 3.1)
    sampler       2 P                      bytes a GPU: its own copy of the weights, in bfloat16; no model is split here
    cache         4 L w                    bytes a token: keys and values in bfloat16
    rows         (0.9 M - states - sampler - 8 GB) / (cache T)        at once on a GPU, T tokens each; 8 GB are for activations
    decode       max( (2 P + rows cache T/2) / (e B),  2 P rows / (u F) )      seconds for a token of every row: the weights and half a
                                           full cache are read, or the products are made
    train        8 P / (u F)               seconds a token: forward 2 P, backward 4 P, and once more forward, for activations are not kept
    step         tokens (decode / rows + train) / N

e = 0.6 and u = 0.4 are the shares of the peaks that good engines reach; they are assumed, not measured.
What is left out: the prompt, rows that end early, the exchange of weights and gradients, judging. So
these are the times that one cannot get below by much.

Sources. GPUs: NVIDIA's data sheets, https://www.nvidia.com/en-us/data-center/h200/ and h100/ (SXM;
dense bfloat16). Shapes: Qwen2.5, arXiv:2412.15115, table 1, and the model cards.
"""
GPUS = {"H100": {"M": 80e9, "F": 989e12, "B": 3.35e12}, "H200": {"M": 141e9, "F": 989e12, "B": 4.8e12}}
MODELS = {"0.5 B": {"P": 0.49e9, "L": 24, "w": 2 * 64}, "7 B": {"P": 7.61e9, "L": 28, "w": 4 * 128}}
T, TOKENS = 2048, 1024 * 2048  # tokens of a row; of a step, 128 problems x 8 samples
e, u = 0.6, 0.4


def needs(P, L, w, M, F, B, N):
    """-> dict, by the letters above: states, sampler and room (bytes a GPU), rows a GPU, decode and
    train (tokens/s of all GPUs), step (seconds). No rows: it does not fit.

    >>> tiny = needs(P=1e9, L=10, w=100, M=100e9, F=1e15, B=1e12, N=1)
    >>> tiny["states"], tiny["sampler"], round(tiny["room"] / 1e9, 3)                      # 90 - 16 - 2 - 8
    (16000000000.0, 2000000000.0, 64.0)
    >>> tiny["rows"]                                                                       # 64e9 / (4 * 10 * 100 * 2048) is more
    1024
    """
    states, sampler, cache = 16 * P / N, 2 * P, 4 * L * w
    room = 0.9 * M - states - sampler - 8e9
    rows = min(int(room / (cache * T)), TOKENS // T // N)  # no more than a step has
    if rows < 1:
        return {"states": states, "sampler": sampler, "room": room, "rows": 0}
    seconds = max((2 * P + rows * cache * T / 2) / (e * B), 2 * P * rows / (u * F))
    decode, train = N * rows / seconds, N * u * F / (8 * P)
    return {"states": states, "sampler": sampler, "room": room, "rows": rows, "decode": decode, "train": train,
            "step": TOKENS / decode + TOKENS / train}


def table():
    lines = ["| model | GPUs | states + sampler, GB a GPU | left for the cache, GB | rows at once, a GPU | sampling, 1,000 tokens/s | training, 1,000 tokens/s "
             "| seconds a step |", "|---|---|---|---|---|---|---|---|"]
    for model, shape in MODELS.items():
        for gpu, card in GPUS.items():
            for N in (1, 8, 64):
                n = needs(**shape, **card, N=N)
                start = f"| {model} | {N} x {gpu} | {n['states'] / 1e9:.1f} + {n['sampler'] / 1e9:.1f} | {max(0, n['room']) / 1e9:.0f} |"
                lines.append(f"{start} does not fit | | | |" if not n["rows"] else
                             f"{start} {n['rows']:,} | {n['decode'] / 1e3:,.0f} | {n['train'] / 1e3:,.0f} | {n['step']:,.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())

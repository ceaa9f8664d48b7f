"""A model in the files of Hugging Face, there and back: config.json and model.safetensors, as a
`LlamaForCausalLM` has them.

Our GPT is a Llama with tied embeddings; only names differ, and one order. RoPE turns pairs of channels,
and channel i of a head is paired with its neighbour in ours (one complex number), with channel i + D/2
in theirs (two halves):

    ours      a0 b0 a1 b1 a2 b2        theirs      a0 a1 a2 b0 b1 b2

So the rows of q and k that make these channels change places; a score q . k does not notice.

The safetensors format: 8 bytes, the length of the header, little-endian; the header, JSON: name ->
dtype, shape and where its bytes begin and end; then the bytes. Source:
https://github.com/huggingface/safetensors
"""
import json
import math

import torch

from config import InputError

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
ROTARY = ("q", "k")  # the projections whose channels are turned
LAYER = {"attention_norm": "input_layernorm", "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj",
         "out": "self_attn.o_proj", "mlp_norm": "post_attention_layernorm", "gate": "mlp.gate_proj", "up": "mlp.up_proj",
         "down": "mlp.down_proj"}


def halves(weight, head_dim):
    """Neighbouring channels -> two halves of each head: weight (heads x head_dim, C) -> the same shape.

    >>> halves(torch.arange(6.0)[:, None], 6).flatten().tolist()
    [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]
    """
    return weight.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)


def neighbours(weight, head_dim):
    """And back: `neighbours(halves(w, d), d)` is w, bit by bit."""
    return weight.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)


def names(n_layer):
    """Our name of each weight -> theirs."""
    found = {"embed.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight"}
    return found | {f"blocks.{i}.{ours}.weight": f"model.layers.{i}.{theirs}.weight"
                    for i in range(n_layer) for ours, theirs in LAYER.items()}


def turned(name, weight, head_dim, how):
    """`how`, one of the two functions above, on the weights that it is about; the others stay what they
    are."""
    return how(weight, head_dim) if name.split(".")[-2] in ROTARY else weight


def to_llama(model):
    """GPT -> (the fields of config.json that follow from its shape, its weights by their names)."""
    c, hidden = model.config, model.blocks[0].down.in_features
    head_dim = c.n_embd // c.n_head
    shape = {"vocab_size": c.vocab_size, "max_position_embeddings": c.block_size, "num_hidden_layers": c.n_layer,
             "num_attention_heads": c.n_head, "num_key_value_heads": c.n_kv_head or c.n_head, "hidden_size": c.n_embd,
             "intermediate_size": hidden, "head_dim": head_dim}
    same = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5,
            "rope_theta": 10_000.0, "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False, "dtype": "float32"}
    state = model.state_dict()
    return same | shape, {theirs: turned(ours, state[ours], head_dim, halves) for ours, theirs in names(c.n_layer).items()}


def from_llama(fields, state):
    """What a config.json and a safetensors file hold -> (shape, a dict for GPTConfig; weights by our
    names). KeyError if something is missing."""
    shape = {"vocab_size": fields["vocab_size"], "block_size": fields["max_position_embeddings"],
             "n_layer": fields["num_hidden_layers"], "n_head": fields["num_attention_heads"], "n_embd": fields["hidden_size"]}
    groups = fields["num_key_value_heads"]
    shape["n_kv_head"] = 0 if groups == shape["n_head"] else groups
    head_dim = shape["n_embd"] // shape["n_head"]
    return shape, {ours: turned(ours, state[theirs], head_dim, neighbours) for ours, theirs in names(shape["n_layer"]).items()}


def write_safetensors(file, state):
    """Weights by name -> a binary file."""
    header, place = {"__metadata__": {"format": "pt"}}, 0
    kinds = {dtype: name for name, dtype in DTYPES.items()}
    for name, weight in state.items():
        header[name] = {"dtype": kinds[weight.dtype], "shape": list(weight.shape), "data_offsets": [place, place + weight.nbytes]}
        place += weight.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for weight in state.values():
        file.write(weight.contiguous().cpu().view(torch.uint8).numpy())


def read_safetensors(path):
    """-> weights by name, on the CPU. ValueError if the file is cut short, or of another kind."""
    content, state = bytearray(path.read_bytes()), {}
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    header.pop("__metadata__", None)
    for name, entry in header.items():
        dtype, shape, (start, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if end - start != math.prod(shape) * dtype.itemsize or begin + end > len(content):
            raise ValueError(name)
        state[name] = torch.frombuffer(content, dtype=dtype, count=math.prod(shape), offset=begin + start).view(shape).clone()
    return state


def read_folder(folder):
    """A folder that export.py wrote, or that transformers saved after it -> what `checkpoint.load`
    gives. InputError if it is none."""
    try:
        fields = json.loads((folder / "config.json").read_text())
        vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
        shape, weights = from_llama(fields, read_safetensors(folder / "model.safetensors"))
        ours = fields["thinksmall"]
        task, config = {"name": ours["task"]["name"], "options": dict(ours["task"]["options"])}, dict(ours["config"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder}: cannot be read as a model that export.py wrote ({type(error).__name__}: {error})")
    return {"task": task, "vocabulary": sorted(word for word, i in vocabulary.items() if i > 1), "shape": shape, "config": config,
            "model": weights}

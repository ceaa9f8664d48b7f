// The forward pass of model.py in plain JavaScript: one token at a time, with a key-value cache. No library.
//
//   x       = embed[token]                                      (C)
//   x      += out(attention(norm(x)))     RoPE on q and k       H query heads share K key-value heads
//   x      += down(silu(gate(y)) * up(y)), y = norm(x)          SwiGLU
//   logits  = embed @ norm(x)             tied embeddings       (V)
//
// The matrices come as float16, packed by weights.py, and are widened to float32 once. Every vector is a Float32Array;
// a matrix (rows, columns) is one too, row after row, as in torch: y = W x.
"use strict";

const bytesOf = base64 => Uint8Array.from(atob(base64), c => c.charCodeAt(0)).buffer;
const float32 = base64 => new Float32Array(bytesOf(base64));

/** Base64 of little-endian float16 -> Float32Array. 1 bit sign, 5 bits exponent, 10 bits fraction. */
function float16(base64) {
  const halves = new Uint16Array(bytesOf(base64)), wide = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) {
    const h = halves[i], exponent = (h >> 10) & 31, fraction = h & 1023;
    const size = exponent === 0 ? fraction * 2 ** -24                            // subnormal, and zero
      : exponent === 31 ? (fraction ? NaN : Infinity) : (1024 + fraction) * 2 ** (exponent - 25);
    wide[i] = h & 0x8000 ? -size : size;
  }
  return wide;
}

/** W x for W (rows, x.length). The inner loop of everything. */
function product(W, x, rows) {
  const n = x.length, y = new Float32Array(rows);
  for (let r = 0, at = 0; r < rows; r++, at += n) {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += W[at + i] * x[i];
    y[r] = sum;
  }
  return y;
}

function rmsNorm(x, weight) {
  let squares = 0;
  for (const v of x) squares += v * v;
  const scale = 1 / Math.sqrt(squares / x.length + 1e-5);
  return x.map((v, i) => v * scale * weight[i]);
}

/** RoPE, in place: each pair of neighbouring channels is a complex number, and is turned by position * 10000^(-i / half). */
function rotate(x, position, size) {
  const half = size / 2;
  for (let i = 0; i < x.length / 2; i++) {
    const angle = position * 10000 ** (-(i % half) / half), cos = Math.cos(angle), sin = Math.sin(angle);
    const re = x[2 * i], im = x[2 * i + 1];
    x[2 * i] = re * cos - im * sin;
    x[2 * i + 1] = re * sin + im * cos;
  }
}

/** softmax(logits / temperature) -> Float32Array. Temperature 0 stands for 1, as in sample.py: greedy choices, honest numbers. */
function softmax(logits, temperature = 1) {
  const largest = logits.reduce((a, b) => Math.max(a, b)), p = logits.map(v => Math.exp((v - largest) / (temperature || 1)));
  const total = p.reduce((a, b) => a + b);
  return p.map(v => v / total);
}

/** -sum p log p, in nats. */
function entropy(p) {
  return p.reduce((sum, v) => v > 0 ? sum - v * Math.log(v) : sum, 0);
}

/** A token drawn from softmax(logits / temperature); temperature 0 takes the likeliest. `uniform`: a number in [0, 1). */
function choose(logits, temperature, uniform = Math.random()) {
  if (temperature === 0) return logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
  const p = softmax(logits, temperature);
  for (let token = 0; token < p.length; token++) if ((uniform -= p[token]) < 0) return token;
  return p.indexOf(p.reduce((a, b) => Math.max(a, b)));  // the sum may round to a little less than 1
}

class Model {
  /** packed: {config, float16: {tensors: [[name, count], ...], data}, float32: {the same}}, see weights.py */
  constructor(packed) {
    this.config = packed.config;
    this.w = {};
    for (const [widen, { tensors, data }] of [[float16, packed.float16], [float32, packed.float32]]) {
      const all = widen(data);
      let at = 0;
      for (const [name, count] of tensors) this.w[name] = all.subarray(at, at += count);
    }
  }

  /** Keys and values of every layer. Writing at a position again forgets what stood there: going back costs nothing. */
  cache() {
    const { n_layer, n_head, n_embd, block_size } = this.config, kv = this.config.n_kv_head || n_head;
    const empty = () => Array.from({ length: n_layer }, () => new Float32Array(block_size * kv * n_embd / n_head));
    return { keys: empty(), values: empty() };
  }

  /** Read one token at `position`, everything before it from the cache.
      -> {logits (V), attention[layer][head] (position + 1)}: what comes next, and where each head looked. */
  step(token, position, cache) {
    const { n_layer, n_head, n_embd, vocab_size } = this.config, kvHeads = this.config.n_kv_head || n_head;
    const size = n_embd / n_head, shared = n_head / kvHeads, width = kvHeads * size, w = this.w;
    let x = w["embed.weight"].slice(token * n_embd, (token + 1) * n_embd);
    const attention = [];
    for (let layer = 0; layer < n_layer; layer++) {
      const of = name => w[`blocks.${layer}.${name}.weight`], keys = cache.keys[layer], values = cache.values[layer];
      let y = rmsNorm(x, of("attention_norm"));
      const q = product(of("q"), y, n_embd), k = product(of("k"), y, width);
      rotate(q, position, size);
      rotate(k, position, size);
      keys.set(k, position * width);
      values.set(product(of("v"), y, width), position * width);
      const mixed = new Float32Array(n_embd), looks = [];
      for (let head = 0; head < n_head; head++) {
        const own = head * size, theirs = Math.floor(head / shared) * size, scores = new Float32Array(position + 1);
        for (let t = 0; t <= position; t++) {
          let score = 0;
          for (let i = 0; i < size; i++) score += q[own + i] * keys[t * width + theirs + i];
          scores[t] = score / Math.sqrt(size);
        }
        const look = softmax(scores);
        for (let t = 0; t <= position; t++)
          for (let i = 0; i < size; i++) mixed[own + i] += look[t] * values[t * width + theirs + i];
        looks.push(look);
      }
      attention.push(looks);
      const written = product(of("out"), mixed, n_embd);
      x = x.map((v, i) => v + written[i]);
      y = rmsNorm(x, of("mlp_norm"));
      const gate = product(of("gate"), y, of("gate").length / n_embd), up = product(of("up"), y, gate.length);
      const down = product(of("down"), gate.map((g, i) => g / (1 + Math.exp(-g)) * up[i]), n_embd);
      x = x.map((v, i) => v + down[i]);
    }
    return { logits: product(w["embed.weight"], rmsNorm(x, w["norm.weight"]), vocab_size), attention };
  }
}

/** Text <-> token ids, as tasks/tokenizer.py: the longest word first, a run of digits is always one number. */
class Vocabulary {
  constructor(pieces) {  // pieces[id]: the text of a token; 0 and 1 are padding and the end
    this.pieces = pieces;
    this.ids = new Map(pieces.map((piece, id) => [piece, id]).slice(2));
    const words = [...this.ids.keys()].filter(word => !/^[0-9]+$/.test(word)).sort((a, b) => b.length - a.length);
    const escaped = words.map(word => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    this.pattern = new RegExp([...escaped, "[0-9]+", "[^]"].join("|"), "gu");
  }

  /** -> ids. Throws an Error that names the first piece that is no token. */
  encode(text) {
    return (text.match(this.pattern) || []).map(piece => {
      if (!this.ids.has(piece)) throw new Error(`“${piece}” is no token of this task`);
      return this.ids.get(piece);
    });
  }
}

if (typeof module !== "undefined") module.exports = { float16, softmax, entropy, choose, Model, Vocabulary };  // node, for the tests

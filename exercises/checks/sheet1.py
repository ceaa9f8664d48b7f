"""Tokens, masks, sampling: what is asked, and what the known mistakes look like."""
import torch

from checks import cases, mistakes


@cases("1.1")
def _(draw):
    found = []
    for _ in range(3):
        B, T = draw.randint(2, 5), draw.randint(6, 11)
        starts, lengths, _ = draw.rows(B, T)
        found.append({"starts": starts, "lengths": lengths, "T": T + draw.randint(0, 2)})
    return found


mistakes("1.1",
    ("the mask leaves out EOS: the last sampled token is chosen by the policy too",
     "place < lengths[:, None]", "place < lengths[:, None] - 1"),
    ("padding is in the mask: positions count from 0, so the last token stands at lengths - 1",
     "place < lengths[:, None]", "place <= lengths[:, None]"),
    ("the mask covers the prompt: nobody chose these tokens", "(place >= starts[:, None]) & ", ""),
    ("the last token of the prompt is in the mask: the completion begins at starts",
     "place >= starts[:, None]", "place >= starts[:, None] - 1"),
    ("the first sampled token is not in the mask: >= and not >", "place >= starts[:, None]",
     "place > starts[:, None]"),
    ("`lengths` are those of whole rows, prompt included, and not of completions",
     "place < lengths[:, None]", "place < (starts + lengths)[:, None]"),
)


@cases("1.2")
def _(draw):
    found = []
    for temperature in (1.0, draw.choice([0.5, 0.7]), draw.choice([1.5, 2.0]), 0.0):
        B, V = draw.randint(20, 40), draw.randint(4, 9)
        found.append({"logits": 2 * draw.normal(B, V), "temperature": temperature,
                      "noise": draw.rand(B, V).clamp(1e-4, 1 - 1e-4)})
    # certain: any noise will do
    found.append({"logits": 200 * torch.eye(draw.randint(5, 9)), "temperature": 1.0, "noise": None})
    return found


mistakes("1.2",
    ("the temperature is not applied", "logits / (temperature or 1.0)", "logits"),
    ("multiplied by the temperature: a high one must make the choice more open",
     "logits / (temperature or 1.0)", "logits * (temperature or 1.0)"),
    ("the log-prob is that of temperature 1, and not of the distribution that was sampled from",
     "return tokens, logprobs.", "return tokens, torch.log_softmax(logits, dim=-1)."),
    ("always the largest logit: no noise is added", "(logprobs + gumbel).argmax(-1)",
     "logprobs.argmax(-1)"),
    ("the Gumbel noise has the wrong sign: g = -log(-log u)", "noise.log().neg_().log_().neg_()",
     "noise.log().neg_().log_()"),
    ("uniform noise is added as it is: it has to become Gumbel noise, g = -log(-log u)",
     "noise.log().neg_().log_().neg_()", "noise"),
    ("probabilities are returned, and not their logs", "[:, 0]", "[:, 0].exp()"),
    ("logits are returned: log-probs need the softmax", "return tokens, logprobs.gather",
     "return tokens, logits.gather"),
    ("the noise is inside of the log-prob: it serves the choice alone",
     "return tokens, logprobs.gather",
     "return tokens, (logprobs if temperature == 0 else torch.log_softmax(logprobs + gumbel, "
     "-1)).gather"),
)


@cases("1.3")
def _(draw):
    found = []
    for stop in (None, 3):
        B, T, V = draw.randint(4, 6), draw.randint(7, 10), 7
        n = B - 1
        positions = draw.ints(1, T - 2, B)
        done = torch.zeros(B, dtype=torch.bool)
        done[draw.randrange(n)] = True
        ends = positions + draw.ints(1, 3, B)
        # a live row that has room for one token more
        ends[(done.int().argmin())] = positions[done.int().argmin()] + 1
        wanted = draw.ints(1, V - 1, n)
        live = (~done[:n]).nonzero()[:, 0]
        wanted[live[-1]] = 1 if stop is None else stop  # a row that ends by itself, with room left
        ends[live[-1]] = positions[live[-1]] + 3
        logits = draw.normal(n, V) + 6 * torch.nn.functional.one_hot(wanted, V)
        order = list(range(B))
        draw.shuffle(order)
        if order == sorted(order):
            order = order[::-1]
        found.append({"tokens": draw.ints(2, V - 1, B, T), "logprobs": -draw.rand(B, T),
                      "rows": torch.tensor(order),
                      "positions": positions, "ends": ends, "chosen": draw.ints(2, V - 1, B),
                      "done": done, "n": n, "logits": logits,
                      "temperature": draw.choice([0.7, 1.0, 1.3]), "eos": 1, "stop": stop})
    return found


mistakes("1.3",
    ("written to row i, and not to row buf.rows[i]: rows have moved", "buf.rows[:n], positions",
     "torch.arange(n), positions"),
    ("a row that is done is written on", "torch.where(done, buf.tokens[place], chosen)", "chosen"),
    ("the log-prob of a row that is done is overwritten",
     "torch.where(done, buf.logprobs[place], logprob)", "logprob"),
    ("shifted by one: the token belongs at `positions`, the first free place",
     "buf.rows[:n], positions.clamp", "buf.rows[:n], (positions + 1).clamp"),
    ("shifted by one: the token overwrites the one before it", "buf.rows[:n], positions.clamp",
     "buf.rows[:n], (positions - 1).clamp"),
    ("a row gets more tokens than it has room for: it is done when positions + 1 reaches ends",
     "positions + 1 >= buf.ends[:n]", "positions >= buf.ends[:n]"),
    ("EOS does not end a row", "in (eos, stop)", "in (stop,)"),
    ("`stop` does not end a row", "in (eos, stop)", "in (eos,)"),
    ("buf.chosen is not set: the next step reads it", "    buf.chosen[:n] = chosen\n", ""),
    ("the log-probs are not stored",
     "    buf.logprobs[place] = torch.where(done, buf.logprobs[place], logprob)\n", ""),
)


@cases("1.4")
def _(draw):
    found = []
    for temperature in (1.0, draw.choice([0.6, 1.4])):
        V, B = draw.randint(6, 8), draw.randint(3, 5)
        path = list(range(2, V))  # an order in which token follows token, and at its end EOS
        draw.shuffle(path)
        table = draw.normal(V, V) / 2
        for token, after in zip(path, path[1:] + [1]):
            table[token, after] += 4
        prompts = [[draw.choice(path) for _ in range(draw.randint(1, 4))] for _ in range(B)]
        # one that ends at once, one that goes on for long
        prompts[0], prompts[1] = [path[-1]], [*prompts[1][:2], path[0]]
        limits = [draw.randint(2, V) for _ in range(B)]
        limits[0], limits[1] = 4, V + 2
        limits[2] = 2
        prompts[2] = [path[0], path[0], path[1]]  # cut off by its limit
        found.append({"table": table, "prompts": prompts, "limits": limits, "temperature": temperature,
                      "eos": 1})
    found.append({"table": table, "prompts": prompts, "limits": 3, "temperature": 1.0, "eos": None})
    return found


mistakes("1.4",
    ("reads the last column: in a shorter row that is padding", "[rows, lengths - 1]", "[:, -1]"),
    ("reads the logits at the first free place, and not at the row's own last token",
     "model(tokens[:, :int(lengths.max())])[rows, lengths - 1]",
     "model(torch.nn.functional.pad(tokens, (0, 1)))[rows, lengths]"),
    ("EOS is not counted: the mask leaves out EOS", "lengths = lengths + live\n",
     "lengths = lengths + (live if eos is None else live & (chosen != eos))\n"),
    ("nothing ends a row but its limit: EOS must", "finished = finished | (live & (chosen == eos))",
     "pass"),
    ("rows that have ended are written on", "live = ~finished & (lengths < ends)",
     "live = lengths < ends"),
    ("the limit of each row is not kept: the longest one holds for all",
     "torch.as_tensor(max_new_tokens, device=model.device)",
     "torch.as_tensor(max_new_tokens, device=model.device).max()"),
    ("the limit is taken for the length of the whole row: it is about new tokens",
     "ends = starts + torch.as_tensor(max_new_tokens, device=model.device)",
     "ends = torch.maximum(starts, torch.as_tensor(max_new_tokens, "
     "device=model.device).expand(len(starts)))"),
    ("`finished` holds rows that were cut off by their limit too", "logprobs[:, :T], finished)",
     "logprobs[:, :T], torch.ones_like(finished))"),
    ("the log-probs stand one place too early: logprobs[b, t] describes tokens[b, t]",
     "logprobs[rows[live], lengths[live]] =", "logprobs[rows[live], lengths[live] - 1] ="),
    ("the temperature is not passed on to `choose`", "choose(logits, temperature, generator)",
     "choose(logits, 1.0, generator)"),
)


@cases("1.5")
def _(draw):
    found = []
    for temperature in (1.0, draw.choice([0.5, 0.7]), draw.choice([1.5, 2.0]), 0.0):
        B, T, V = draw.randint(2, 4), draw.randint(4, 7), draw.randint(4, 8)
        found.append({"table": draw.normal(V, V), "tokens": draw.ints(0, V - 1, B, T),
                      "temperature": temperature,
                      "weights": [draw.normal(B, T), draw.normal(B, T)]})
    return found


mistakes("1.5",
    ("shifted by one: logprobs[b, t] must describe tokens[b, t], so column 0 is empty and not the "
     "last one",
     "return torch.cat((zero, logprobs), dim=1), torch.cat((zero, entropies), dim=1)",
     "return torch.cat((logprobs, zero), dim=1), torch.cat((entropies, zero), dim=1)"),
    ("the entropies are shifted by one: entropies[b, t] is about the choice of tokens[b, t]",
     "torch.cat((zero, entropies), dim=1)", "torch.cat((entropies, zero), dim=1)"),
    ("no shift: what stands at t in the logits is about the token after it",
     "logprobs = logp.gather(-1, tokens[:, 1:, None])[..., 0]",
     "logprobs = logp.gather(-1, tokens[:, :-1, None])[..., 0]"),
    ("the temperature is not applied", "model(tokens[:, :-1]) / (temperature or 1.0)",
     "model(tokens[:, :-1])"),
    ("the temperature is applied after the softmax", "logp = torch.log_softmax(logits, dim=-1)",
     "logp = torch.log_softmax(logits * (temperature or 1.0), dim=-1) / (temperature or 1.0)"),
    ("probabilities are returned, and not their logs", "return torch.cat((zero, logprobs), dim=1)",
     "return torch.cat((zero, logprobs.exp()), dim=1)"),
    ("logits are returned: log-probs need the softmax", "logprobs = logp.gather",
     "logprobs = logits.gather"),
    ("the entropy has the wrong sign", "entropies = -(", "entropies = ("),
    ("no gradient flows: `score` is what the loss is made of",
     "logits = model(tokens[:, :-1]) / (temperature or 1.0)",
     "logits = model(tokens[:, :-1]).detach() / (temperature or 1.0)"),
    ("no gradient flows through the entropies", "torch.cat((zero, entropies), dim=1)",
     "torch.cat((zero, entropies.detach()), dim=1)"),
    ("column 0 is missing: the result is as wide as `tokens`",
     "return torch.cat((zero, logprobs), dim=1), torch.cat((zero, entropies), dim=1)",
     "return logprobs, entropies"),
)


@cases("1.6")
def _(draw):
    found = []
    for _ in range(2):
        B, T, V = draw.randint(2, 4), draw.randint(4, 7), draw.randint(4, 8)
        found.append({"table": draw.normal(V), "tokens": draw.ints(0, V - 1, B, T),
                      "weights": [draw.normal(B, T)]})
    return found


mistakes("1.6",
    ("the value has seen its token: entry [b, t] may know tokens[b, :t] only",
     "return torch.cat((after.new_zeros(len(tokens), 1), after), dim=1)", "return model(tokens)"),
    ("shifted the wrong way: the empty column is the first one",
     "torch.cat((after.new_zeros(len(tokens), 1), after), dim=1)",
     "torch.cat((after, after.new_zeros(len(tokens), 1)), dim=1)"),
    ("column 0 is missing: the result is as wide as `tokens`",
     "torch.cat((after.new_zeros(len(tokens), 1), after), dim=1)", "after"),
    ("no gradient flows: the critic could not learn", "after = model(tokens[:, :-1])",
     "after = model(tokens[:, :-1]).detach()"),
    ("column 0 is not 0: nothing has been read before the first token",
     "after.new_zeros(len(tokens), 1)", "after[:, :1]"),
)

"""Continuous thoughts: the last hidden state of a GPT is its next input, in the place of a token's embedding.

    h_0 = hidden state at <think>;  h_j = GPT(question <think> h_0 ... h_(j-1)), at its last position          (C,)
    loss = - mean over the written tokens y_t of  log pi(y_t | question, h_0 ... h_(n-1), y_<t)

The recipe:
  1. a row is a question, a number of thoughts and what is written after them (`row`);
  2. the question is read at once; then one thought after the other, each reading the one before (`run`): keys and values are kept, and
     with them the gradient, so that the loss of what is written also trains what was thought;
  3. what is written is read at once, behind the thoughts.

Simplified: one thought a step of the chain; a pause token is the padding token's embedding, which nothing else reads.
Source: Coconut, arXiv:2412.06769, section 3; pause tokens, arXiv:2310.02226. experiments/coconut.py trains and measures.
"""
from cells import HERE  # puts the repository on the path
import torch
import torch.nn.functional as F

FAR = 10**6  # the position of padding: no token looks that far


def row(task, problem, stage, slots=True):
    """-> tokens of the question and <think>; how many thoughts; tokens of what is written after them, EOS included."""
    encode, steps = task.tokenizer.encode, [step + ", " for step in task.chain(problem).split(", ")[:-1]]
    stage = min(stage, len(steps))
    rest = "".join(steps[stage:]) + f"</think><answer>{problem.answer}</answer>"
    return encode(problem.prompt + "<think>"), stage * slots, encode(rest) + [task.tokenizer.eos]


def block(rows, starts):
    """Lists of ids, and where each begins (B,) -> ids (B, T) and positions (B, T), padded on the right."""
    T = max(map(len, rows))
    place = torch.arange(T)
    ids = torch.tensor([r + [0] * (T - len(r)) for r in rows])
    return ids, torch.where(place < torch.tensor([[len(r)] for r in rows]), starts[:, None] + place, FAR)


def read(model, x, positions, memory):
    """GPT.hidden, for inputs that are no tokens: x (B, S, C) at positions (B, S) follow what `memory` holds, (keys and values of each
    layer, their positions) or None -> hidden states (B, S, C), the new memory. With gradients, unlike a KVCache."""
    past, seen = memory or ([None] * len(model.blocks), positions[:, :0])
    seen, now = torch.cat((seen, positions), 1), []
    visible = (seen[:, None] <= positions[..., None])[:, None]  # (B, 1, S, all); padding sees itself, so that no row is empty
    rope = model.rope[positions.clamp(max=len(model.rope) - 1)][:, :, None]
    for layer, before in zip(model.blocks, past):
        def attend(q, k, v):
            now.append((k, v) if before is None else (torch.cat((before[0], k), 2), torch.cat((before[1], v), 2)))
            return F.scaled_dot_product_attention(q, *now[-1], attn_mask=visible)
        x = layer(x, rope, attend)
    return model.norm(x), (now, seen)


def run(model, rows, thinks):
    """-> log-probs (B, T, V) of what is written, its ids (B, T), mask (B, T); and the states h_0, h_1, ... (B, n + 1, C), of which the last
    is not fed back. thinks=False: in a thought's place stands a pause, the embedding of the padding token."""
    questions, counts, rests = zip(*rows)
    lengths, counts = torch.tensor([len(q) for q in questions]), torch.tensor(counts)
    ids, positions = block(questions, torch.zeros_like(lengths))
    hidden, memory = read(model, model.embed(ids), positions, None)
    states = [hidden[torch.arange(len(rows)), lengths - 1]]  # h_0
    pause = model.embed(torch.zeros(len(rows), 1, dtype=torch.int64))
    for j in range(int(counts.max())):
        live = j < counts
        hidden, memory = read(model, states[-1][:, None] if thinks else pause, torch.where(live, lengths + j, FAR)[:, None], memory)
        states.append(torch.where(live[:, None], hidden[:, 0], states[-1]))  # a row that has had its thoughts keeps its last state
    ids, positions = block(rests, lengths + counts)
    hidden, _ = read(model, model.embed(ids), positions, memory)
    before = torch.cat((states[-1][:, None], hidden[:, :-1]), 1)  # what each written token is predicted from
    return model.logits(before).log_softmax(-1), ids, positions < FAR, torch.stack(states, 1)


def probe(train, labels, test, truth, steps):
    """Multinomial logistic regression from states (N, C) to values (N,), by Adam on all of `train` at once -> its accuracy on `test`."""
    X, Z = ((x - train.mean(0)) / (train.std(0) + 1e-6) for x in (train, test))
    with torch.enable_grad():
        linear = torch.nn.Linear(X.shape[1], int(max(labels.max(), truth.max())) + 1)
        optimizer = torch.optim.Adam(linear.parameters(), lr=0.03, weight_decay=1e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(linear(X), labels).backward()
            optimizer.step()
    return float((linear(Z).argmax(1) == truth).float().mean())

"""The same work in other hands: the textbook loop, transformers and TRL. Used by speed.py.

    python bench/speed.py --peers        after: pip install transformers==5.23.0 trl==1.16.0

What is the same: the weights (ours are copied into a `LlamaForCausalLM`, and the logits have to agree to 1e-4 before anything is
timed), the prompts, the limit of new tokens, the batch, float32, the threads, temperature 1, the reward. Sampled tokens are
counted up to and including EOS, for both. Times alternate in one process and are given as ratios.

What was chosen in favour of the peers, of what was tried: the kind of attention that is faster here; `generate` with its key-value
cache, without gradients, and with the left padding it needs; TRL without gradient checkpointing, bfloat16, reference model or
logging, and in as many micro-batches as are fastest (one optimizer step for the whole batch in any case); the same fused
AdamW. TRL's step is timed from `on_step_begin` to `on_step_end`, so fetching data is left out. Ours is all of `collect`, the
rewards, `update` and what it measures on the way. The rate is 1e-6 for both, so that lengths stay what they are.
"""
import copy
import os
import statistics
import string
import tempfile
import time
import warnings

import torch

import tasks
from evaluate import fixed_problems
from grpo import GRPO, GRPOConfig
from model import GPT, GPTConfig
from plumbing.hugging_face import to_llama
from rewards import RewardConfig, rule_rewards
from sample import choose, generate
from tasks.tokenizer import Tokenizer

GROUP = 16  # samples of one prompt
LR = 1e-6   # so small that the policy stays what it is, and with it the lengths
KINDS = ("sdpa", "eager")  # of attention in transformers, and micro-batches in TRL: all are tried, the fastest is compared
SPLITS = (1, 4, 8)


# ------------------------------------------------------------------------------------------------------ the same work

class Words(tasks.Task):
    """A task with nothing to learn, for measuring: 48 tokens, and the rule is as good as a coin.

    An untrained policy ends after any token with a chance of about 1/48: lengths are geometric, 40 of 84 tokens on average. With
    such a rule every group disagrees, so no row of an update can be skipped.
    """
    name, step_token, checkable = "words", "; ", True
    max_prompt_tokens, min_new_tokens, max_new_tokens = 9, 1, 84
    letters = string.ascii_letters[:44]

    def __init__(self):
        self.tokenizer = Tokenizer("words", ["</think>", "; ", *self.letters])

    def draw(self, rng):
        prompt = "".join(rng.choices(self.letters, k=rng.randint(5, self.max_prompt_tokens)))
        return tasks.Problem(prompt, None, ("words", prompt))

    def verify(self, problem, completion):
        return len(completion) % 2 == 0


def untrained(task, max_new_tokens=0, width=128, device="cpu", n_kv_head=0):
    """-> GPT of the default shape, or wider, with random weights. Heads stay 32 channels wide."""
    torch.manual_seed(0)
    length = task.max_prompt_tokens + (max_new_tokens or task.max_new_tokens)
    return GPT(GPTConfig(task.tokenizer.n_vocab, length, n_head=width // 32, n_embd=width, n_kv_head=n_kv_head)).to(device)


def timed(function, device):
    """-> (seconds, result)."""
    started = now(device)
    result = function()
    return now(device) - started, result


def now(device):
    """-> seconds, once the device has done what it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def grpo_config(model, rows):
    """The settings of train.py: on a GPU the whole batch is one micro-batch."""
    return GRPOConfig(prompts=rows // GROUP, group_size=GROUP, lr=LR, **({"micro_batch": rows} if model.device.type == "cuda" else {}))


def grpo_step(algorithm, problems):
    """One whole step as train.py does it: sample, judge, update -> rollout, rewards."""
    rollout = algorithm.collect(problems)
    rewards, _ = rule_rewards(algorithm.task, rollout.problems, rollout.completions(algorithm.task.tokenizer),
                              rollout.finished.tolist(), RewardConfig())
    algorithm.update(rollout, rewards)
    return rollout, rewards


# ------------------------------------------------------------------------------------------------------- our own loops

@torch.no_grad()
def generate_without_cache(model, prompts, max_new_tokens, eos, generator):
    """The textbook loop: for every new token the whole sequence goes through the model again. -> tokens that were sampled."""
    rows = torch.arange(len(prompts), device=model.device)
    lengths = torch.tensor([len(p) for p in prompts], device=model.device)
    tokens = torch.zeros(len(prompts), int(lengths.max()) + max_new_tokens, dtype=torch.long, device=model.device)
    for i, prompt in enumerate(prompts):
        tokens[i, :len(prompt)] = torch.tensor(prompt)
    done, sampled = torch.zeros(len(prompts), dtype=torch.bool, device=model.device), 0
    for _ in range(max_new_tokens):
        logits = model(tokens[:, :int(lengths.max())])[rows, lengths - 1]
        chosen, _ = choose(logits, 1.0, generator)
        tokens[rows, lengths] = chosen.masked_fill(done, 0)
        sampled += int((~done).sum())
        done |= chosen == eos
        lengths = lengths + 1
        if done.all():
            break
    return sampled


def bench_own_loops(model, task, rows, repeats):
    """`generate` beside the loop without a cache and the loop that keeps finished rows: the same prompts, the same policy."""
    prompts = [task.tokenizer.encode(p.prompt) for p in fixed_problems(task, "train", rows // GROUP) for _ in range(GROUP)]
    eos, times = task.tokenizer.eos, {"ours": [], "kept": [], "naive": []}

    def rollout(seed, evict):
        generator = torch.Generator(model.device).manual_seed(seed)
        return generate(model, prompts, task.max_new_tokens, eos=eos, pad=task.tokenizer.pad, generator=generator, evict=evict)

    rollout(0, True), rollout(0, False)  # warm up, and let the cache be allocated
    for seed in range(repeats):
        for name, evict in (("ours", True), ("kept", False)):
            seconds, result = timed(lambda: rollout(seed, evict), model.device)
            times[name].append(seconds / result.sampled_tokens)
        if seed < 2:  # slow, and steady: twice, on an eighth of the rows
            generator = torch.Generator(model.device).manual_seed(seed)
            seconds, sampled = timed(lambda: generate_without_cache(model, prompts[::8], task.max_new_tokens, eos, generator),
                                     model.device)
            times["naive"].append(seconds / sampled)
    lengths = result.lengths - result.prompt_lengths
    allowed = float(lengths.max() * len(lengths) / lengths.sum())
    ours, kept, naive = (statistics.median(times[name]) for name in ("ours", "kept", "naive"))
    print(f"sampling: {len(prompts)} rows, completions of {float(lengths.float().mean()):.1f} tokens on average, "
          f"{int(lengths.min())} to {int(lengths.max())}")
    print(f"  generate                               {1 / ours:>9,.0f} tokens/s")
    print(f"  (a) without a key-value cache          {1 / naive:>9,.0f} tokens/s   generate is {naive / ours:.1f} x as fast")
    print(f"  (b) finished rows stay in the batch    {1 / kept:>9,.0f} tokens/s   generate is {kept / ours:.2f} x as fast; "
          f"the lengths allow {allowed:.2f}, so {kept / ours / allowed:.0%} of it")


# ---------------------------------------------------------------------------------------------- transformers and TRL

def llama(model):
    """Our GPT -> a `LlamaForCausalLM` with the same weights, which gives the same logits."""
    from transformers import LlamaConfig, LlamaForCausalLM
    fields, weights = to_llama(model)
    theirs = LlamaForCausalLM(LlamaConfig(**fields, bos_token_id=None, pad_token_id=0, eos_token_id=1, attn_implementation="sdpa"))
    theirs = theirs.to(model.device)
    theirs.load_state_dict(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]})
    tokens = torch.randint(model.config.vocab_size, (4, model.config.block_size - 1), device=model.device)
    with torch.no_grad():
        apart_by = float((theirs(tokens).logits - model(tokens)).abs().max())
    count = lambda m: sum(p.numel() for p in m.parameters())
    assert count(theirs) == count(model) and apart_by < 1e-4, f"not the same model: logits differ by {apart_by}"
    print(f"  the same model: {count(theirs):,} parameters each, logits differ by at most {apart_by:.0e}")
    return theirs


def sampled_by_transformers(theirs, prompts, max_new_tokens, eos):
    """`generate` of transformers. prompts: lists of ids -> (B,) how many tokens each row sampled. eos None: nothing ends a row."""
    longest = max(map(len, prompts))
    tokens = torch.tensor([[0] * (longest - len(p)) + p for p in prompts], device=theirs.device)  # left padding, as it needs
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=theirs.device)
    theirs.generation_config.eos_token_id = eos
    new = theirs.generate(tokens, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, use_cache=True,
                          max_new_tokens=max_new_tokens, pad_token_id=0)[:, longest:]
    ended = new == eos if eos is not None else torch.zeros_like(new, dtype=torch.bool)
    return torch.where(ended.any(1), ended.int().argmax(1) + 1, new.shape[1])


def compare_generate(model, theirs, rows, repeats):
    """Tokens per second of both, with uneven lengths and with every row to the end."""
    task = Words()
    prompts = [task.tokenizer.encode(p.prompt) for p in fixed_problems(task, "train", rows // GROUP) for _ in range(GROUP)]
    generator = torch.Generator(model.device).manual_seed(0)
    run_theirs = lambda eos: sampled_by_transformers(theirs, prompts, task.max_new_tokens, eos)
    tried = {}
    for kind in 2 * KINDS:  # the second time counts
        theirs.set_attn_implementation(kind)
        tried[kind], _ = timed(lambda: run_theirs(task.tokenizer.eos), model.device)
    best = min(tried, key=tried.get)
    theirs.set_attn_implementation(best)
    print(f"  attention in transformers: {best}; tried before: " + ", ".join(f"{kind} {s:.2f} s" for kind, s in tried.items()))
    for name, eos in (("uneven", task.tokenizer.eos), ("all rows to the end", None)):
        def ours():
            rollout = generate(model, prompts, task.max_new_tokens, eos=eos, generator=generator)
            return rollout.lengths - rollout.prompt_lengths

        rates, lengths = {"ours": [], "theirs": []}, {"ours": [], "theirs": []}
        for repeat in range(repeats + 1):
            for who in ("ours", "theirs"):
                seconds, sampled = timed(ours if who == "ours" else lambda: run_theirs(eos), model.device)
                rates[who].append(int(sampled.sum()) / seconds)
                lengths[who].append(float(sampled.float().mean()))
        show(f"generate, {name}", rates, lengths, "tokens/s")


def show(name, results, lengths, unit):
    """One line: the medians of both, and the ratio. The first of each was for warming up."""
    ours, theirs = (statistics.median(results[who][1:]) for who in ("ours", "theirs"))
    ratio, digits = (ours / theirs, ",.0f") if unit == "tokens/s" else (theirs / ours, ".2f")
    print(f"  {name:<32}{ours:>10{digits}}{theirs:>10{digits}} {unit:<9}{ratio:>6.2f} x as fast   mean length "
          f"{statistics.mean(lengths['ours'][1:]):.1f} and {statistics.mean(lengths['theirs'][1:]):.1f}", flush=True)


def their_tokenizer(task):
    """Our vocabulary as a tokenizer of transformers: a letter is a token."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    names = {0: "<|pad|>", 1: "<|eos|>"} | {i: task.tokenizer.decode([i]) for i in range(2, task.tokenizer.n_vocab)}
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in names.items()}, unk_token="<|pad|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("</think>|; |."), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|eos|>", padding_side="left")


def trl_steps(theirs, task, problems, micro_batches, steps, each=lambda seconds, length: None):
    """`steps` steps of TRL's GRPOTrainer on a copy of `theirs`; after each, `each(seconds, mean length)` is called, untimed."""
    import datasets
    import transformers
    import trl
    seen = []

    def reward(completions, completion_ids, **_):  # the rule of `Words`, and running out of tokens is a failure
        seen.append(statistics.mean(map(len, completion_ids)))
        return [float(ids[-1] == task.tokenizer.eos and len(text) % 2 == 0) for text, ids in zip(completions, completion_ids)]

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_, **__):
            self.started = now(theirs.device)

        def on_step_end(self, *_, **__):
            each(now(theirs.device) - self.started, seen[-1])

    with tempfile.TemporaryDirectory() as folder:
        rows = len(problems) * GROUP
        config = trl.GRPOConfig(
            output_dir=folder, use_cpu=theirs.device.type == "cpu", bf16=False, gradient_checkpointing=False,
            per_device_train_batch_size=rows // micro_batches, gradient_accumulation_steps=micro_batches,
            steps_per_generation=micro_batches, num_generations=GROUP, max_completion_length=task.max_new_tokens, temperature=1.0,
            num_iterations=1, beta=0.0, loss_type="grpo", scale_rewards="group", learning_rate=LR, lr_scheduler_type="constant",
            optim="adamw_torch_fused", adam_beta2=0.95, weight_decay=0.0, max_grad_norm=1.0, max_steps=steps, report_to="none",
            save_strategy="no", logging_strategy="no", disable_tqdm=True)
        theirs = copy.deepcopy(theirs)
        theirs.generation_config.eos_token_id = task.tokenizer.eos
        trainer = trl.GRPOTrainer(theirs, reward, config, datasets.Dataset.from_list([{"prompt": p.prompt} for p in problems]),
                                  processing_class=their_tokenizer(task), callbacks=[Clock()])
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()


def compare_grpo(model, theirs, rows, repeats):
    """Seconds of a whole GRPO step of both, one of ours after each of theirs."""
    task = Words()
    problems = fixed_problems(task, "train", rows // GROUP)
    tried = {}
    for split in SPLITS:
        tried[split] = []
        trl_steps(theirs, task, problems, split, 2, lambda seconds, _: tried[split].append(seconds))
    best = min(tried, key=lambda split: tried[split][-1])
    algorithm = GRPO(copy.deepcopy(model), task, grpo_config(model, rows), torch.Generator(model.device).manual_seed(0))
    results, lengths = {"ours": [], "theirs": []}, {"ours": [], "theirs": []}

    def each(seconds, length):
        our_seconds, (rollout, _) = timed(lambda: grpo_step(algorithm, problems), model.device)
        for who, s, n in (("theirs", seconds, length), ("ours", our_seconds, rollout.sampled_tokens / rows)):
            results[who].append(s)
            lengths[who].append(n)

    trl_steps(theirs, task, problems, best, repeats + 1, each)
    show("GRPO step", results, lengths, "seconds")
    print(f"  TRL in {best} micro-batches; tried before: " + ", ".join(f"{n}: {s[-1]:.2f} s" for n, s in tried.items()))


def bench_peers(rows, repeats, device, n_kv_head=0):
    """The whole comparison, or one line that says what to install."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    warnings.filterwarnings("ignore")
    try:
        import transformers
    except ModuleNotFoundError:
        return print("\npeers: transformers is not installed: pip install transformers==5.23.0 trl==1.16.0")
    transformers.logging.set_verbosity_error()
    print(f"\npeers: transformers {transformers.__version__}, {rows} rows, at most {Words.max_new_tokens} new tokens")
    print(f"  {'':<32}{'ours':>10}{'theirs':>10}")
    model = untrained(Words(), device=device, n_kv_head=n_kv_head)
    theirs = llama(model).eval()
    compare_generate(model, theirs, rows, repeats)
    try:
        import trl
    except ModuleNotFoundError:
        return print("  TRL is not installed: pip install trl==1.16.0")
    print(f"  TRL {trl.__version__}")
    compare_grpo(model, theirs, rows, repeats)

"""Go on with an exported run in TRL's GRPOTrainer, on as many processes as there are.

    pip install transformers==5.23.0 trl==1.16.0
    python export.py runs/countdown-0 exported
    accelerate launch examples/trl_grpo.py exported trained                              one process for each GPU
    torchrun --nproc-per-node 2 examples/trl_grpo.py exported trained                    two, without any (see below)
    python train.py --algo grpo --init trained                                           and back

The policy is the exported one, the problems and the rule are those of its task. Each process holds the
whole model, writes its share of the completions and reads its share of the gradient; the gradients are
averaged before the step. So a step sees --prompts problems, however many processes there are. On CPUs
`accelerate launch` needs mpirun for more than one process; torchrun, which it calls on GPUs, does
without. A pretrained model takes the same path: give its folder to GRPOTrainer and put an instruction
in front of each prompt; the reward function stays.

What carries over, and what does not: docs/scaling.md.
"""
import os
import pathlib
import random
import sys
from dataclasses import dataclass

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import checkpoint
from config import InputError, Parser, add_flags, from_flags, setting
from evaluate import evaluate, fixed_problems
from plumbing.dataset import row, rule_reward


@dataclass
class TRLConfig:
    """GRPO in TRL"""
    steps: int = setting(50, "steps of reinforcement learning", low=1, high=10**7)
    prompts: int = setting(32, "problems per step, over all processes", low=1, high=65536)
    group_size: int = setting(8, "samples per problem", low=2, high=65536)
    lr: float = setting(3e-4, "AdamW's rate", low=0.0, high=1.0)
    micro_batches: int = setting(1, "forward passes per step; memory and speed only", low=1, high=65536)
    problems: int = setting(4096, "training problems in the data set", low=1, high=10**7)
    seed: int = setting(0, "of the data set, the samples and their order", low=0, high=2**31 - 1)
    eval_problems: int = setting(100, "val problems before and after, 16 samples each", low=1, high=10**6)


def training_arguments(out, c, limit, processes, cpu):
    """-> trl.GRPOConfig: the settings that make it what `--algo grpo` is here, as far as it can be. limit: tokens of a completion."""
    import trl
    rows = c.prompts * c.group_size
    if rows % (processes * c.micro_batches):
        raise InputError(f"--prompts {c.prompts}: {rows} rows cannot be shared by {processes} processes x "
                         f"{c.micro_batches} micro-batches")
    return trl.GRPOConfig(
        output_dir=str(out), use_cpu=cpu, seed=c.seed, max_steps=c.steps, num_generations=c.group_size,
        per_device_train_batch_size=rows // processes // c.micro_batches, gradient_accumulation_steps=c.micro_batches,
        # what is sampled from is what is trained
        max_completion_length=limit, temperature=1.0, top_p=1.0, top_k=0,
        # grpo.TABLE["grpo"], and the optimizer of model.make_optimizer
        loss_type="grpo", scale_rewards="group", num_iterations=1, beta=0.0,
        learning_rate=c.lr, lr_scheduler_type="constant", optim="adamw_torch_fused", adam_beta2=0.95,
        weight_decay=0.0, max_grad_norm=1.0,
        bf16=False, gradient_checkpointing=False, report_to="none", save_strategy="no", logging_steps=10)


def main(argv=None):
    parser = Parser(prog="examples/trl_grpo.py", description="Go on with an exported run in TRL's GRPOTrainer.")
    parser.add_argument("exported", metavar="DIR", help="a folder that export.py wrote")
    parser.add_argument("out", metavar="OUT", help="where the trained model is written, a folder like DIR")
    add_flags(parser, TRLConfig)
    given = vars(parser.parse_args(argv))
    c, policy = from_flags(TRLConfig, given), given["exported"]
    before, task, trained = checkpoint.load_run(policy)
    limit = trained["max_new_tokens"] or task.max_new_tokens
    try:
        import datasets
        import torch
        import transformers
        import trl
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: pip install transformers==5.23.0 trl==1.16.0")
    arguments = training_arguments(given["out"], c, limit, int(os.environ.get("WORLD_SIZE", 1)), not torch.cuda.is_available())
    rng = random.Random(f"data set {c.seed}")
    rows = [row(task, task.sample_problem(rng, "train"), rng) for _ in range(c.problems)]
    tokenizer = transformers.AutoTokenizer.from_pretrained(policy)
    model, rule = transformers.AutoModelForCausalLM.from_pretrained(policy), rule_reward(task, tokenizer.eos_token_id)
    trainer = trl.GRPOTrainer(model, rule, arguments, datasets.Dataset.from_list(rows), processing_class=tokenizer)
    trainer.train()
    trainer.save_model(given["out"])  # the first process writes
    if trainer.accelerator.is_main_process:
        after, _, _ = checkpoint.load_run(given["out"])
        problems = fixed_problems(task, "val", c.eval_problems)
        accuracy = [evaluate(model, task, problems, 16, (1,), limit)["pass@1"] for model in (before, after)]
        print(f"{trainer.accelerator.num_processes} processes, {c.steps} steps of {c.prompts} x {c.group_size}; pass@1 on "
              f"{len(problems)} val problems: {accuracy[0]:.3f} before, {accuracy[1]:.3f} after; in {given['out']}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)

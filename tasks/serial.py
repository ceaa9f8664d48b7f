"""What the four serial tasks share: demonstrations that think only now and then, and a judge that reads
the answer alone.

A serial task is a computation whose every step needs the result of the one before. A network of fixed
depth has no layers left for a long one, unless it writes down what it has so far: then each step is a
short look-up (arXiv:2402.12875).

A demonstration always gives the true answer. With probability `cot_share` it shows the full chain of
steps before it,

    <think>25, 625, 374, </think><answer>374</answer>

otherwise none:

    <think></think><answer>374</answer>

Imitation keeps this mixture: it thinks as often as the teacher did. Only the reward can tell that
thinking pays. The judge never looks at the thinking; whether a chain is right is reported (`describe`),
not rewarded.
"""
import re
from dataclasses import dataclass

from config import setting
from rewards import extract_answer, split_thinking
from tasks import Task

THINKING = re.compile(r"<think>([^<>]*)</think>")


@dataclass
class SerialOptions:
    """serial task"""
    cot: str = setting("mix", "which demonstrations show the full chain: a share of them, all ('on') or none ('off')",
                       choices=("mix", "on", "off"))
    cot_share: float = setting(0.25, "with --cot mix: the share of demonstrations that show the full chain", low=0.0, high=1.0)


class SerialTask(Task):
    """A task fills in `draw`, with the true answer as a text, and `chain`; and the sizes, with `set_sizes`."""
    defaults = {"steps": 100}  # by then every answer has a chain, and most groups agree
    answers: frozenset      # every text that is an answer to some problem
    step_token = ", "       # every step of a chain ends with it

    def chain(self, problem):
        """-> str: the true steps, each ending in `step_token`. There is one chain for each problem, so it can be compared."""
        raise NotImplementedError

    def set_sizes(self, prompt, chain, answer):
        """The longest prompt, chain and answer, in tokens -> the limits of the contract. Four tags and EOS are the frame."""
        self.max_prompt_tokens = prompt
        self.min_new_tokens = 5 + answer
        self.max_new_tokens = 5 + answer + (chain if self.options.cot != "off" else 0)

    def demonstration(self, problem, rng):
        share = {"on": 1.0, "off": 0.0, "mix": self.options.cot_share}[self.options.cot]
        thinking = self.chain(problem) if rng.random() < share else ""
        return f"<think>{thinking}</think><answer>{problem.answer}</answer>"

    def verify(self, problem, completion):
        return extract_answer(completion) == problem.answer

    def canonical_answer(self, completion):
        answer = extract_answer(completion)
        return answer if answer in self.answers else None

    def describe(self, problem, completion):
        """chain: whether there is a closed <think> block with something in it; chain_right: whether
        that is the whole true chain, step by step."""
        match = THINKING.search(completion)
        thinking = match[1] if match else ""
        return {"chain": float(bool(thinking.strip())), "chain_right": float(thinking == self.chain(problem))}

    def steps_hold(self, problem, completion):
        """Whether there is no chain, or the true one, or as much of it as a limit has left; and nothing outside of it."""
        thinking, ended, outside = split_thinking(completion)
        true = self.chain(problem)
        return not outside.strip() and (thinking.strip() in ("", true.strip()) or not ended and true.startswith(thinking))

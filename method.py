"""What an algorithm is.

The interface between the loop in train.py and the algorithms. A method is built on a policy and a task;
then, again and again,

    rollout = method.collect(problems)             it has samples written: by default by the policy
    rewards = ...                                  the loop judges them, by the rule
    metrics = method.update(rollout, rewards)      it learns from them; metrics["updates"]: how many optimizer steps it took

The loop knows nothing else about it. Everything a method owns beside the policy (a critic, a reference,
an optimizer, a number that moves) is named in `saved`, so that a run can be stopped at any moment.

How one is found by its name: plumbing/catalogue.py.
"""
from sample import SamplingConfig, collect


class Method:
    """A base for algorithms. `Config`, a dataclass that derives from sample.SamplingConfig, holds their settings."""
    Config = SamplingConfig
    saved = ()  # names of attributes that a checkpoint holds: with a state_dict of their own, or JSON values

    def __init__(self, policy, task, config, generator=None, reward=None):
        """policy: GPT, trained in place. generator: torch.Generator on its device. reward(rollout) ->
        (B,): the run's own rewards, for a method that samples more than it is given; tokens of its own
        rollouts go into `rollout.discarded`."""
        self.policy, self.task, self.config, self.generator, self.reward = policy, task, config, generator, reward
        self.behavior = policy  # the model that is sampled from
        self.seen = {}  # what `update` has computed of the tokens of its rollout anyway, left here for plumbing/rollouts.py

    @property
    def max_new_tokens(self):
        """How many tokens a completion may have."""
        return self.config.max_new_tokens or self.task.max_new_tokens

    def collect(self, problems):
        """problems: list -> Rollout, `config.group_size` samples of each, next to each other."""
        return collect(self.behavior, self.task, problems, self.config, self.generator)

    def update(self, rollout, rewards):
        """rewards (B,) float32 -> metrics, a dict of floats: `updates` and whatever is worth a curve."""
        raise NotImplementedError

    def state_dict(self):
        owned = {name: getattr(self, name) for name in self.saved}
        return {name: value.state_dict() if hasattr(value, "state_dict") else value for name, value in owned.items()}

    def load_state_dict(self, state):
        for name in self.saved:
            if hasattr(getattr(self, name), "load_state_dict"):
                getattr(self, name).load_state_dict(state[name])
            else:
                setattr(self, name, state[name])

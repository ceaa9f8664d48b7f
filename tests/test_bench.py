"""bench/speed.py: what the floor counts, by hand. No test looks at the clock."""
import pytest
import torch

from bench.speed import in_a_process, keys_seen, reading_work, sampling_work, weights
from model import GPT, GPTConfig
from bench.peers import Words, llama, untrained

MODEL = GPT(GPTConfig(vocab_size=5, block_size=16, n_layer=2, n_head=1, n_embd=4))
P = 2 * (4 * 4 * 4 + 3 * 4 * 32)  # two layers: q, k, v, out of 4 x 4; gate, up, down of 4 x 32 (8/3 of 4, rounded up to 32)
HEAD = 5 * 4


def test_weights_are_those_of_the_matrices_in_the_blocks():
    assert weights(MODEL) == P


def test_keys_seen_adds_up_positions():
    assert keys_seen(torch.tensor([0, 2]), torch.tensor([3, 4])) == (1 + 2 + 3) + (3 + 4)


def test_work_of_sampling_by_hand():
    # Two rows share a prompt of 3. One samples 3 tokens (the first two are read, with 4 and 5 keys), the other 1 (none is read).
    operations, moved = sampling_work(MODEL, torch.tensor([3, 3]), torch.tensor([6, 4]), group=2)
    assert operations == (3 + 2) * 2 * P + (1 + 2 + 3 + 4 + 5) * 4 * 4 * 2 + (3 + 1) * 2 * HEAD
    assert moved == 3 * 4 * (P + HEAD) + (4 + 5) * 2 * 4 * 2 * 4


def test_work_of_an_update_is_three_times_that_of_scoring():
    lengths = torch.tensor([3, 2])
    operations, moved = reading_work(MODEL, lengths)
    assert operations == 5 * 2 * (P + HEAD) + (1 + 2 + 3 + 1 + 2) * 4 * 4 * 2
    assert moved == 4 * (P + HEAD)
    assert reading_work(MODEL, lengths, train=True)[0] == 3 * operations


def test_the_memory_of_a_step_is_measured_in_a_process_of_its_own():
    peak, before = in_a_process(1, 4, 8, "cpu")
    assert peak >= before > 0


def test_llama_has_our_weights():
    """Only where transformers is installed; `llama` itself checks that the logits agree."""
    transformers = pytest.importorskip("transformers")
    assert isinstance(llama(untrained(Words())), transformers.LlamaForCausalLM)

"""The attention that `hotset bench states` compares its recurrent layer with on an accelerator: PyTorch's FlashAttention at the same
dimensions, over prompts and while decoding. Prints one JSON object, times in ms."""

import json

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as attention

HEADS, HEAD_DIM, BATCH, LENGTH = 4, 64, 4, 4096
LENGTHS = [256 << power for power in range(11)]
BATCHES = [1, 8, 32, 128]
# Matrices of a prompt or a cache that are larger are left out.
LARGEST = 8 << 30


def timed(what, times):
    """The median of event times, in ms."""
    what()
    torch.cuda.synchronize()
    taken = []
    for _ in range(times):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        what()
        end.record()
        end.synchronize()
        taken.append(begin.elapsed_time(end))
    return sorted(taken)[len(taken) // 2]


def numbers(batch, tokens):
    return torch.randn(batch, HEADS, tokens, HEAD_DIM, dtype=torch.float16, device="cuda")


def prefill(tokens):
    q, k, v = (numbers(BATCH, tokens) for _ in range(3))
    return timed(lambda: attention(q, k, v, is_causal=True), 5)


def decode(batch, tokens):
    q, k, v = numbers(batch, 1), numbers(batch, tokens), numbers(batch, tokens)
    return timed(lambda: attention(q, k, v), 20)


def size(batch, tokens):
    return 3 * 2 * batch * HEADS * tokens * HEAD_DIM


with torch.inference_mode(), sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
    fitting = [tokens for tokens in LENGTHS if size(BATCH, tokens) <= LARGEST]
    print(
        json.dumps(
            {
                "torch": torch.__version__,
                "device": torch.cuda.get_device_name(),
                "prefill_ms": {tokens: prefill(tokens) for tokens in fitting},
                "decode_ms": {tokens: decode(BATCH, tokens) for tokens in fitting},
                "decode_by_batch_ms": {batch: decode(batch, LENGTH) for batch in BATCHES},
            }
        )
    )

"""What PyTorch does with the layers of scenarios/moe-on-gpu.yaml: pinned copies, bf16 products by cuBLAS, and experts
that are fetched when a token needs them (no cache, as Accelerate's on-demand offload does). Prints one JSON object."""

import json
import time

import torch

LAYERS, EXPERTS, CHOSEN, HIDDEN, WIDTH = 12, 32, 4, 2048, 1408
TOKENS = 40


def timed(what, times=20):
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


def copies():
    rates = {}
    for mib in (1, 4, 16, 64):
        host = torch.empty(mib << 20, dtype=torch.uint8, pin_memory=True)
        device = torch.empty(mib << 20, dtype=torch.uint8, device="cuda")
        up = timed(lambda: device.copy_(host, non_blocking=True))
        down = timed(lambda: host.copy_(device, non_blocking=True))
        rates[f"{mib} MiB"] = {"h2d_gb_s": (mib << 20) / up / 1e6, "d2h_gb_s": (mib << 20) / down / 1e6}
    return rates


def peers():
    """Copies from one device to another, where there are two."""
    if torch.cuda.device_count() < 2:
        return None
    rates = {}
    for mib in (1, 4, 16, 64):
        here, there = (torch.empty(mib << 20, dtype=torch.uint8, device=f"cuda:{number}") for number in (0, 1))
        to, back = timed(lambda: there.copy_(here)), timed(lambda: here.copy_(there))
        rates[f"{mib} MiB"] = {"to_gb_s": (mib << 20) / to / 1e6, "from_gb_s": (mib << 20) / back / 1e6}
    return rates


def products():
    weights = torch.randn(64, 3 * WIDTH, HIDDEN, device="cuda", dtype=torch.bfloat16)
    rates = {}
    for tokens in (1, 4, 16):
        x = torch.randn(tokens, HIDDEN, device="cuda", dtype=torch.bfloat16)
        took = timed(lambda: [x @ matrix.T for matrix in weights])
        rates[tokens] = weights.numel() * 2 / took / 1e6
    return {"bf16_gb_s_by_tokens": rates}


def offload():
    """Tokens a second where every expert is copied from pinned memory when it is chosen."""
    shapes = [(WIDTH, HIDDEN), (WIDTH, HIDDEN), (HIDDEN, WIDTH)]
    expert = lambda: [torch.empty(shape, dtype=torch.bfloat16, pin_memory=True) for shape in shapes]
    # Contents do not matter to time; a layer's experts share memory in pairs to keep set-up short.
    host = [[expert() for _ in range(EXPERTS // 2)] for _ in range(LAYERS)]
    attention = torch.randn(4 * HIDDEN, HIDDEN, device="cuda", dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(1, HIDDEN, device="cuda", dtype=torch.bfloat16)

    def token():
        for layer in host:
            x @ attention.T
            for chosen in torch.randperm(EXPERTS, generator=generator)[:CHOSEN].tolist():
                gate, up, down = (m.to("cuda", non_blocking=True) for m in layer[chosen // 2])
                torch.nn.functional.linear(
                    torch.nn.functional.silu(x @ gate.T) * (x @ up.T), down
                )
        torch.cuda.synchronize()

    for _ in range(3):
        token()
    begin = time.perf_counter()
    for _ in range(TOKENS):
        token()
    return {"tokens_per_s": TOKENS / (time.perf_counter() - begin)}


print(json.dumps({
    "torch": torch.__version__,
    "gpu": torch.cuda.get_device_name(),
    "copies": copies(),
    "peers": peers(),
    "products": products(),
    "on_demand_offload": offload(),
}))

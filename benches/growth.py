"""What a run costs as it gets longer: real time and memory of `hotset simulate` at 10^5, 10^6 and 10^7 output tokens.

usage: python3 benches/growth.py [--tokens 100000,1000000,10000000] [--hotset target/release/hotset]

Three loads, each in a process of its own, pinned to one core: a resident dense model and a mixture of experts of which 6 GiB are in fast memory,
both with 64 clients who send 512 tokens and get 1,000, and the dense one with requests that come at random. Time should grow with the tokens,
memory should stay below 100 MB.
"""

import argparse
import json
import os
import sys
import tempfile

DENSE = """
name: dense
machine: h100-sxm
model: llama-3.1-8b
kv: { paged: { most: 56 GiB } }
workload:
  routing: { dense: {} }
  prompt_tokens: 512
  output_tokens: 1000
  prefill: { chunk: 2048 }
policy: lru
"""

EXPERTS = """
name: experts
machine: h100-sxm
model: gpt-oss-20b
memory: { hbm: 487 slots }
workload:
  routing: { zipf_markov: { tokens: 40000, traces: 80 } }
  prompt_tokens: 512
  output_tokens: 1000
  prefill: { chunk: 2048 }
policy: lru
"""

LOADS = [
    ("dense, closed loop", DENSE, "{{ closed: {{ batch: 64, limit: {requests} }} }}"),
    ("experts, closed loop", EXPERTS, "{{ closed: {{ batch: 64, limit: {requests} }} }}"),
    ("dense, at random", DENSE, "{{ poisson: {{ rate: 4 /s, batch: 64, limit: {requests} }} }}"),
]


def run(binary, scenario, requests):
    """The summary of a run, and the most memory that it took, in MB."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 1)
        os.execv(binary, [binary, "simulate", scenario, "--set", f"workload.requests={requests}", "--format", "json"])
    os.close(writing)
    with os.fdopen(reading) as output:
        text = output.read()
    _, status, usage = os.wait4(child, 0)
    if status != 0:
        sys.exit(f"{binary} failed")
    return json.loads(text), usage.ru_maxrss / 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=lambda text: [int(one) for one in text.split(",")], default=[10**5, 10**6, 10**7])
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(root, "target"))
    parser.add_argument("--hotset", default=os.path.join(target, "release", "hotset"))
    arguments = parser.parse_args()
    if not os.path.exists(arguments.hotset):
        sys.exit(f"{arguments.hotset} does not exist: cargo build --release")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(f"{'load':<22}{'tokens':>12}{'seconds':>10}{'us a token':>12}{'MB':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name, text, requests in LOADS:
            scenario = os.path.join(folder, "scenario.yaml")
            with open(scenario, "w") as file:
                file.write(text)
            for tokens in arguments.tokens:
                summary, megabytes = run(arguments.hotset, scenario, requests.format(requests=tokens // 1000))
                each = summary["wall_s"] / summary["output_tokens"] * 1e6
                print(f"{name:<22}{summary['output_tokens']:>12,}{summary['wall_s']:>10.2f}{each:>12.3f}{megabytes:>8.0f}", flush=True)


main()

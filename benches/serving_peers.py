"""Iterations a second of a whole serving simulation: Hotset beside inference-lab and AISimulate. Run by `benches/peers.py serving`.

A closed loop of clients on llama-3.1-8b, resident on an H100: prompts of 512 tokens, outputs of 1,000, at most 2,048 tokens and
256 requests a step, prompts in chunks, caches in pages of 16. The tools run by turns, each in a process of its own, pinned
to one core; what is printed are medians. An iteration is one step of the engine (one forward pass of the batch), counted so:

  hotset         `layer_steps` over the layers
  inference-lab  the simulated time of a run whose steps all take 1 ms
  AISimulate     the simulated time of a run in which decoding and prompts take 1 ms each, where a step that has both takes
                 2 ms: so steps that have both count twice, in AISimulate's favour (0.5 % at 64 clients, 1.7 % at 256)

Time is that of the simulation alone: `wall_s` and `wall_time_ms` as hotset and AISimulate report it (AISimulate's imports and
configuration take seconds more), the whole process for inference-lab, which starts in milliseconds. The times of their steps come from
rooflines in hotset and inference-lab, from `polynomial` timing in AISimulate: its operator tables are slower.

Then hotset alone with experts to fetch: gpt-oss-20b, 24 layers, 6 GiB for experts; and how many times the resident step that is.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

LAYERS, PROMPT, OUTPUT, CHUNK = 32, 512, 1000, 2048

# Requests of a run at a number of clients, at --scale 1.
REQUESTS = {1: 1000, 64: 5120, 256: 5120}

HOTSET = """
name: closed loop on a resident dense model
machine: h100-sxm
model: llama-3.1-8b
resident: {{ dense: true }}
kv: {{ paged: {{ most: 56 GiB }} }}
workload:
  routing: {{ dense: {{}} }}
  requests: {{ closed: {{ batch: {clients}, limit: {requests} }} }}
  prompt_tokens: {prompt}
  output_tokens: {output}
  prefill: {{ chunk: {chunk} }}
policy: lru
seed: 7
"""

EXPERTS = """
name: closed loop with experts to fetch
machine: h100-sxm
model: gpt-oss-20b
memory: {{ hbm: 487 slots }}
workload:
  routing: {{ zipf_markov: {{ tokens: 40000, traces: 80, skew: 0.77, stickiness: 0.09, coupling: 0, kinds: 8, specialisation: 3.1, favourites: 2.9 }} }}
  requests: {{ closed: {{ batch: {clients}, limit: {requests} }} }}
  prompt_tokens: {prompt}
  output_tokens: {output}
  prefill: {{ chunk: {chunk} }}
policy: lru
seed: 7
"""
EXPERT_LAYERS = 24

LAB_MODEL = """
model = "llama-3.1-8b-instruct"
[scheduler]
max_num_batched_tokens = {chunk}
max_num_seqs = 256
policy = "fcfs"
enable_chunked_prefill = true
block_size = 16
[hardware.h100]
tp = 1
{step_cost}
"""
LAB_LOAD = """
arrival_pattern = "closed_loop"
num_concurrent_users = {clients}
num_requests = {requests}
seed = 7
input_len_dist = {{ type = "fixed", value = {prompt} }}
output_len_dist = {{ type = "fixed", value = {output} }}
"""
LAB_CONSTANT = 'step_cost = { model = "linear", t0 = 1.0e-3 }'

AISIMULATE = """
traffic:
  source: {{type: synthetic, input_tokens: {prompt}, output_tokens: {output}}}
  load: {{type: concurrency, concurrency: {clients}}}
  stop: {{requests: {requests}}}
engine:
  mode: aggregated
  model: meta-llama/Meta-Llama-3.1-8B
  hardware: h100_sxm
  backend: vllm
  workers:
    aggregated: {{scheduler: {{max_batched_tokens: {chunk}, max_sequences: 256}}, timing: {timing}}}
"""


def add_arguments(parser):
    parser.add_argument("--concurrency", type=lambda text: [int(one) for one in text.split(",")], default=[1, 64, 256])
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the requests; less is quicker and coarser")
    parser.add_argument("--inference-lab", default=shutil.which("inference-lab"), help="the program of that name")
    parser.add_argument("--aisimulate", default=shutil.which("aisimulate"), help="the program of that name")


def write(folder, name, text, **values):
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(text.format(prompt=PROMPT, output=OUTPUT, chunk=CHUNK, **values))
    return path


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr or done.stdout}")
    return done.stdout


def hotset(binary, scenario, layers):
    """Seconds and iterations of a run."""
    summary = json.loads(run([binary, "simulate", scenario, "--format", "json"]))
    return summary["wall_s"], summary["layer_steps"] / layers


class InferenceLab:
    def __init__(self, binary, folder, load):
        self.binary, self.report = binary, os.path.join(folder, "inference-lab.json")
        self.model = write(folder, "roofline.toml", LAB_MODEL, step_cost="")
        self.constant = write(folder, "constant.toml", LAB_MODEL, step_cost=LAB_CONSTANT)
        self.load = write(folder, "load.toml", LAB_LOAD, **load)

    def simulate(self, model):
        run([self.binary, "--config", model, "--workload", self.load, "--quiet", "--no-color", "--output", self.report])

    def iterations(self):
        self.simulate(self.constant)
        with open(self.report) as report:
            return json.load(report)["simulation"]["end_time_secs"] * 1e3

    def seconds(self):
        began = time.perf_counter()
        self.simulate(self.model)
        return time.perf_counter() - began


class AiSimulate:
    def __init__(self, binary, folder, load):
        self.binary, self.out = binary, os.path.join(folder, "aisimulate")
        self.model = write(folder, "polynomial.yaml", AISIMULATE, timing="{type: polynomial}", **load)
        constant = "{type: fixed, prefill_ms: 1, decode_ms: 1}"
        self.constant = write(folder, "constant.yaml", AISIMULATE, timing=constant, **load)

    def simulate(self, config):
        run([self.binary, "predict", "--config", config, "--output-dir", self.out, "--overwrite"])
        with open(os.path.join(self.out, "prediction.json")) as report:
            return json.load(report)

    def iterations(self):
        return self.simulate(self.constant)["duration_ms"]

    def seconds(self):
        return self.simulate(self.model)["wall_time_ms"] / 1e3


def resident(arguments, folder, clients):
    """Prints a row; returns Hotset's seconds an iteration."""
    load = {"clients": clients, "requests": max(clients, round(REQUESTS.get(clients, 5120) * arguments.scale))}
    scenario = write(folder, "resident.yaml", HOTSET, **load)
    peers = [InferenceLab(arguments.inference_lab, folder, load), AiSimulate(arguments.aisimulate, folder, load)]
    counts = [peer.iterations() for peer in peers]
    rates = [[], [], []]
    for _ in range(arguments.repetitions):
        seconds, iterations = hotset(arguments.hotset, scenario, LAYERS)
        rates[0].append(iterations / seconds)
        for peer, count, measured in zip(peers, counts, rates[1:]):
            measured.append(count / peer.seconds())
    ours, lab, ais = (statistics.median(of) for of in rates)
    passes = "".join(f"{count:>12,.0f}" for count in [iterations, *counts])
    print(f"{clients:>8}{passes}{ours:>12,.0f}{lab:>12,.0f}{ais:>12,.0f}{ours / lab:>8.2f}{ours / ais:>8.2f}", flush=True)
    return 1 / ours


def with_experts(arguments, folder, clients, dense):
    requests = max(clients, round(REQUESTS.get(clients, 5120) * arguments.scale / 10))
    scenario = write(folder, "experts.yaml", EXPERTS, clients=clients, requests=requests)
    times = []
    for _ in range(arguments.repetitions):
        seconds, iterations = hotset(arguments.hotset, scenario, EXPERT_LAYERS)
        times.append(seconds / iterations)
    taken = statistics.median(times)
    print(f"{clients:>8}{taken * 1e6:>12,.1f}{dense * 1e6:>12,.1f}{taken / dense:>8.1f}", flush=True)


def compare(arguments):
    if not arguments.inference_lab:
        sys.exit("inference-lab is not installed: cargo install inference-lab --version 1.0.0")
    if not arguments.aisimulate:
        sys.exit("aisimulate is not installed: pip install --only-binary :all: aisimulate==0.13.0.dev202610270000000085")
    version = re.search(r"[\d.]+", run([arguments.inference_lab, "--version"]))
    print(f"inference-lab {version[0] if version else '?'}; iterations of a run, iterations a second (median of {arguments.repetitions})")
    names = "".join(f"{name:>12}" for name in ["hotset", "lab", "aisimulate"] * 2)
    print(f"{'clients':>8}{names}{'x lab':>8}{'x ais':>8}")
    with tempfile.TemporaryDirectory() as folder:
        dense = {clients: resident(arguments, folder, clients) for clients in arguments.concurrency}
        print(f"\ngpt-oss-20b, 6 GiB for experts: microseconds an iteration\n{'clients':>8}{'experts':>12}{'resident':>12}{'times':>8}")
        for clients in arguments.concurrency:
            with_experts(arguments, folder, clients, dense[clients])
